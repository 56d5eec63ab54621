"""What a change of vocabulary does to config.json and generation_config.json. Pure: dictionaries in, dictionaries out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from tokswap.checkpoint.matrices import configs, text_config
from tokswap.errors import InputError
from tokswap.tokenizer.alignment import Alignment
from tokswap.tokenizer.vocabulary import ROLES, Vocabulary

_ID_KEY = re.compile(r"^(?P<role>.+)_token_(id|ids|index)$")
_NO_TEXT = re.compile(r"(^|\.)(vision|audio|speech|codec|vq|qformer)")
_ID_LISTS = ("suppress_tokens", "begin_suppress_tokens")
_ID_TABLES = ("lang_to_id", "task_to_id", "vocabulary_map")
_TEXT_DEPENDENT = ("bad_words_ids", "forced_decoder_ids", "sequence_bias", "force_words_ids")
_POSITIONS_FOLLOW_PAD = (
    "camembert",
    "data2vec-text",
    "esm",
    "fsmt",
    "ibert",
    "longformer",
    "luke",
    "m2m_100",
    "mpnet",
    "nllb-moe",
    "prophetnet",
    "roberta",
    "roberta-prelayernorm",
    "seamless_m4t",
    "seamless_m4t_v2",
    "xglm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)
"""Model types that count positions from pad_token_id, so that the pad id is part of the position embeddings."""


@dataclass(frozen=True)
class IdMap:
    """How ids of the source vocabulary translate to the target's.

    target_config: the config of the model that owns the target tokenizer, {} if unknown: it may name a pad or a
    second eos that the tokenizer files do not. notes: what could not be kept, in plain words.
    """

    alignment: Alignment
    source: Vocabulary
    target: Vocabulary
    target_config: Mapping[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def role(self, role: str) -> int | None:
        """Return the target's id of a role, from its tokenizer or else from its config."""
        if role in self.target.roles:
            return self.target.roles[role]
        ids = _as_list(self.target_config.get(f"{role}_token_id"))
        return ids[0] if ids and 0 <= ids[0] < len(self.target) else None

    def has(self, token: int) -> bool:
        """Return whether a number is an id of the source."""
        return 0 <= token < len(self.source)

    def words(self, key: str, value: Any) -> Any:
        """Return what becomes of words that are written as ids: they are another tokenizer's, so nothing."""
        self.notes.append(f"`{key}` was dropped: it lists words as ids of the old tokenizer")

    def translate(self, token: int, wanted: str | None = None) -> int | None:
        """Return the target id for a source id: the same role first, then the row that is copied from it.

        wanted: the role that is meant where the token has several.
        """
        for role in sorted(self.source.roles_of(token), key=lambda role: role != wanted):
            found = self.role(role)
            if found is not None:
                return found
        return self.alignment.target_of(token)


def edit_config(config: Mapping[str, Any], ids: IdMap, rows: int) -> dict[str, Any]:
    """Return config.json for the new vocabulary: sizes and token ids at every nesting level.

    Raises InputError: unmapped-id where the model needs a token that the target lacks, pad-defines-positions.
    """
    result = deepcopy(dict(config))
    _, text = text_config(config)
    old_size, old_per_layer = text["vocab_size"], text.get("vocab_size_per_layer_input")
    for path, child in configs(result):
        if _NO_TEXT.search(path):
            continue
        assert isinstance(child, dict)
        for key in ("vocab_size", "decoder_vocab_size", "n_words"):
            if child.get(key) == old_size:
                child[key] = rows
        if old_per_layer is not None and child.get("vocab_size_per_layer_input") == old_per_layer:
            child["vocab_size_per_layer_input"] = rows
        if type(child.get("unpadded_vocab_size")) is int:  # logits past it are cut off
            child["unpadded_vocab_size"] = min(rows, len(ids.target))
        _edit_ids(child, ids)
        if child.get("model_type") in _POSITIONS_FOLLOW_PAD:
            _check_pad(config, child)
    return result


def edit_generation_config(
    generation: Mapping[str, Any], ids: IdMap, also_eos: Iterable[int] = (), config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return generation_config.json for the new vocabulary; sampling settings stay.

    also_eos: further ids of the target vocabulary that end a text (the donor's own). config: the edited config.json.
    A model without a generation config gets none, unless `also_eos` has ids that its config does not know; then one
    with the config's bos, eos and pad is made to hold them.
    """
    also_eos = list(also_eos)
    result = deepcopy(dict(generation))
    _edit_ids(result, ids)
    if not generation:
        known = {key: (config or {}).get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        if set(also_eos) <= set(_as_list(known["eos_token_id"])):
            return {}
        result = {key: value for key, value in known.items() if value is not None}
    eos = _unique([*_as_list(result.get("eos_token_id")), *also_eos])
    if eos:
        result["eos_token_id"] = eos if len(eos) > 1 or isinstance(result.get("eos_token_id"), list) else eos[0]
    return result


def needed_ids(config: Mapping[str, Any]) -> dict[int, str]:
    """Return the ids that a config or generation config names, at every nesting level, and the key of each."""
    found: dict[int, str] = {}
    for path, child in configs(config):
        if _NO_TEXT.search(path):
            continue
        for key, value in child.items():
            ids: list[int] = []
            if _ID_KEY.match(key):
                ids = _as_list(value)
            elif key in _ID_TABLES and isinstance(value, dict):
                ids = _as_list(list(value.values()))
            elif key == "forced_decoder_ids" and isinstance(value, list):
                ids = _as_list([pair[1] for pair in value if isinstance(pair, list) and len(pair) == 2])
            for token in ids:
                found.setdefault(token, key)
        if child.get("model_type") in _POSITIONS_FOLLOW_PAD:  # pad must not move, so nothing before it may go
            for token in range(max(_as_list(child.get("pad_token_id")), default=0)):
                found.setdefault(token, "pad_token_id")
    return found


def token_ids(config: Mapping[str, Any], key: str) -> list[int]:
    """Return an id field as a list: it may hold nothing, one id or several."""
    return _as_list(config.get(key))


def _edit_ids(config: dict[str, Any], ids: IdMap) -> None:
    for key, value in list(config.items()):
        match = _ID_KEY.match(key)
        if match and (type(value) is int or isinstance(value, list) or match["role"] in ROLES):
            config[key] = _new_ids(key, match["role"], value, ids)
        elif key in _ID_LISTS and isinstance(value, list):
            config[key] = _unique(found for found in map(ids.translate, value) if found is not None)
        elif key in _TEXT_DEPENDENT and value:
            config[key] = ids.words(key, value)
        elif key in _ID_TABLES and isinstance(value, dict):
            found = {name: ids.translate(token) for name, token in value.items() if type(token) is int}
            config[key] = {name: token for name, token in found.items() if token is not None}
            if lost := len(found) - len(config[key]):
                ids.notes.append(
                    f"`{key}` lost {lost:,} of its {len(found):,} tokens, which the new vocabulary has not"
                )


def _new_ids(key: str, role: str, value: Any, ids: IdMap) -> Any:
    old = [token for token in _as_list(value) if ids.has(token)]
    new = [ids.translate(token, role.rpartition("_")[2]) for token in old]  # eos of forced_eos
    if role in ROLES:
        own = ids.role(role)
        found = _unique(token for token in [own, *new] if token is not None)
        if role != "eos":
            found = found[:1]
        if old and not found:
            ids.notes.append(f"`{key}` is now unset: the target tokenizer has no such token")
        return found if isinstance(value, list) else (found[0] if len(found) == 1 else found or None)
    if None in new:
        token = old[new.index(None)]
        name = ids.source.text[token]
        raise InputError(
            "unmapped-id",
            f"the model's config needs the token {name!r} (`{key}`), and the target tokenizer has none like it",
            f"name one that may take its place: --map-token 'TARGET={name}'",
        )
    return new if isinstance(value, list) else (new[0] if new else value)


def _check_pad(old: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    _, text = text_config(old)
    before, after = text.get("pad_token_id"), config.get("pad_token_id")
    if before is not None and before != after:
        raise InputError(
            "pad-defines-positions",
            f"{config['model_type']} models count positions from the pad id, and it would change from {before} to {after}",
            f"use a tokenizer whose pad token has the id {before}",
        )


def _as_list(value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [token for token in values if type(token) is int]


def _unique(values: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(values))
