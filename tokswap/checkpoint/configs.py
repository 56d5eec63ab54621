"""What a change of vocabulary does to config.json and generation_config.json. Pure: parsed JSON in, parsed JSON out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from tokswap.checkpoint.built_in_ids import check_built_in
from tokswap.checkpoint.facts import model_facts
from tokswap.checkpoint.hashed_ids import check_hashes
from tokswap.checkpoint.id_map import IdMap, texts_by_id
from tokswap.checkpoint.nested_configs import configs, id_list, id_role, is_text_path, text_config, text_configs
from tokswap.checkpoint.positions import positions_follow_pad
from tokswap.checkpoint.timestamps import TIMES_FOLLOW_IDS, check_timestamps
from tokswap.errors import InputError
from tokswap.tokenizer.vocabulary import ROLES

_SIZES = ("vocab_size", "decoder_vocab_size", "output_vocab_size", "padded_vocab_size", "text_vocab_size", "n_words")
_ID_LISTS = ("suppress_tokens", "begin_suppress_tokens")
_ID_MAPS = ("lang_to_id", "task_to_id", "text_decoder_lang_to_code_id", "vocabulary_map")
_TEXTS_BY_ID = "id_to_text"
"""A key of Seamless, which counts the letters of the tokens that it speaks."""
_WORD_LISTS = ("bad_words_ids", "forced_decoder_ids", "sequence_bias", "force_words_ids")
"""Keys that hold words as sequences of ids."""


@dataclass(frozen=True)
class Configs:
    """The JSON files of a result that later steps may still change. The writer turns them into files.

    Attributes:
        model: config.json.
        generation: generation_config.json; {} where the result has none.
        tokenizer: tokenizer_config.json.
    """

    model: Mapping[str, Any]
    generation: Mapping[str, Any]
    tokenizer: Mapping[str, Any]


@dataclass(frozen=True)
class Edited:
    """An edited config, and what the user should know about it."""

    config: dict[str, Any]
    notes: tuple[str, ...] = ()


def edit_config(config: Mapping[str, Any], ids: IdMap, rows: int) -> Edited:
    """Return config.json for the new vocabulary: sizes and token ids at every nesting level.

    Args:
        config: The source's config.json.
        ids: How ids translate.
        rows: Rows of the new vocabulary matrices.

    Raises:
        InputError: unmapped-id where the model needs a token that the target lacks; pad-defines-positions;
            hashed-ids; timestamps-not-last; built-in-ids.
    """
    result = deepcopy(dict(config))
    notes: list[str] = []
    _, text = text_config(config)
    old_size, old_per_layer = text["vocab_size"], text.get("vocab_size_per_layer_input")
    for path, child in configs(result):
        if not is_text_path(path):
            _check_offset(path, child)
    for _, child in list(text_configs(result)):  # they are told apart by the sizes that are changed here
        assert isinstance(child, dict)
        for key in _SIZES:
            if child.get(key) == old_size:
                child[key] = rows
        if old_per_layer is not None and child.get("vocab_size_per_layer_input") == old_per_layer:
            child["vocab_size_per_layer_input"] = rows
        if type(child.get("unpadded_vocab_size")) is int:  # logits past it are discarded
            child["unpadded_vocab_size"] = min(rows, len(ids.target))
        far, found = _edit_strangers(child, ids, rows, multimodal=model_facts(config).multimodal)  # by the old ids
        notes += [*found, *edit_ids(child, ids, far)]
        if positions_follow_pad(child):
            _check_pad(config, child)
        check_hashes(child, ids)
        if child.get("model_type") in TIMES_FOLLOW_IDS:
            check_timestamps(ids.source, ids.target)
    check_built_in(result, ids)
    return Edited(result, tuple(notes))


def edit_generation_config(
    generation: Mapping[str, Any], ids: IdMap, also_eos: Iterable[int] = (), config: Mapping[str, Any] | None = None
) -> Edited:
    """Return generation_config.json for the new vocabulary; sampling settings stay.

    A model without a generation config gets none, unless `also_eos` has ids that its config does not know. Then one is
    made with the bos, eos and pad of the config.

    Args:
        generation: The source's generation_config.json, {} without one.
        ids: How ids translate.
        also_eos: Further ids of the target vocabulary that end a text (the donor's own).
        config: The edited config.json.
    """
    also_eos = list(also_eos)
    result = deepcopy(dict(generation))
    notes = edit_ids(result, ids)
    if not generation:
        known = {key: (config or {}).get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        if set(also_eos) <= set(id_list(known["eos_token_id"])):
            return Edited({})
        result = {key: value for key, value in known.items() if value is not None}
    eos = _unique([*id_list(result.get("eos_token_id")), *also_eos])
    if eos:
        result["eos_token_id"] = eos if len(eos) > 1 or isinstance(result.get("eos_token_id"), list) else eos[0]
    return Edited(result, tuple(notes))


def needed_ids(config: Mapping[str, Any]) -> dict[int, str]:
    """Return the ids that a config or generation config names, at every nesting level, and the key of each."""
    found: dict[int, str] = {}
    for _, child in text_configs(config):
        for key, value in child.items():
            for token in _named_ids(key, value):
                found.setdefault(token, key)
        if positions_follow_pad(child):  # pad must not move, so nothing before it may go
            for token in range(max(id_list(child.get("pad_token_id")), default=0)):
                found.setdefault(token, "pad_token_id")
    return found


def set_tie(config: Mapping[str, Any], tie: bool | None) -> dict[str, Any]:
    """Return a config that says whether input embeddings and lm_head are one matrix; None leaves it as it is."""
    result = deepcopy(dict(config))
    if tie is not None:
        for child in [child for _, child in configs(result) if "tie_word_embeddings" in child] or [result]:
            child["tie_word_embeddings"] = tie  # type: ignore[index]
    return result


def _named_ids(key: str, value: Any) -> list[int]:
    if id_role(key) is not None:
        return id_list(value)
    if key in _ID_MAPS and isinstance(value, dict):
        return id_list(list(value.values()))
    if key == "forced_decoder_ids" and isinstance(value, list):
        return id_list([pair[1] for pair in value if isinstance(pair, list) and len(pair) == 2])
    return []


def edit_ids(config: dict[str, Any], ids: IdMap, far: Collection[int] = ()) -> list[str]:
    """Translate the ids of one config in place; returns notes.

    Args:
        config: The config, without those inside it.
        ids: How ids translate.
        far: Ids past the rows of the model that stay as they are.

    Raises:
        InputError: unmapped-id where the model needs a token that the target lacks.
    """
    notes: list[str] = []
    for key, value in list(config.items()):
        role = id_role(key)
        if role is not None and (type(value) is int or isinstance(value, list) or role in ROLES):
            config[key], problem = _new_ids(key, role, value, ids, far)
            notes += problem
        elif key in _ID_LISTS and isinstance(value, list):
            config[key] = _unique(found for found in map(ids.translate, value) if found is not None)
        elif key in _WORD_LISTS and value:
            words, lost = ids.words(key, value)
            config[key] = words or None
            if lost:
                notes.append(f"`{key}`: dropped {lost:,} of {len(value):,} words, which are ids of the old tokenizer")
        elif key == _TEXTS_BY_ID and isinstance(value, dict):
            config[key] = texts_by_id(value, ids)
        elif key in _ID_MAPS and isinstance(value, dict):
            found = {name: ids.translate(token) for name, token in value.items() if type(token) is int}
            config[key] = {name: token for name, token in found.items() if token is not None}
            if lost := len(found) - len(config[key]):
                notes.append(
                    f"`{key}`: dropped {lost:,} of {len(found):,} entries: "
                    "these tokens do not exist in the new vocabulary"
                )
    return notes


def _new_ids(key: str, role: str, value: Any, ids: IdMap, far: Collection[int]) -> tuple[Any, list[str]]:
    old = [token for token in id_list(value) if ids.has(token) or (token in far and role not in ROLES)]
    meant = role.rpartition("_")[2]  # eos of forced_eos
    new = [ids.translate(token, meant) if ids.has(token) else token for token in old]
    if role in ROLES:
        own = ids.role(role)
        found = _unique(token for token in [own, *new] if token is not None)
        if role != "eos":
            found = found[:1]
        named = any(token >= 0 for token in id_list(value))
        if not found and key.endswith("_index"):  # XLM takes no null there
            return value, []
        lost = [f"`{key}` is now unset: the target tokenizer has no such token"] if named and not found else []
        return (found if isinstance(value, list) else (found[0] if len(found) == 1 else found or None)), lost
    if None in new:
        name = ids.source.text[old[new.index(None)]]
        raise InputError(
            "unmapped-id",
            f"the model's config needs the token {name!r} (`{key}`), and the target tokenizer has none like it",
            f"name a token to use instead: --map-token 'TARGET={name}'",
        )
    return (new if isinstance(value, list) else (new[0] if new else value)), []


def _edit_strangers(config: dict[str, Any], ids: IdMap, rows: int, *, multimodal: bool) -> tuple[set[int], list[str]]:
    """Deal with keys whose ids are no tokens of the source, in place; returns the ids that stay, and notes.

    A model that reads images or audio may mark them by an id past its rows, which must stay past them. Other models do
    not use such a key.

    Raises:
        InputError: unmapped-id where the new vocabulary has a row of that id.
    """
    far, notes = set[int](), []
    for key, value in list(config.items()):
        role = id_role(key)
        strangers = [token for token in id_list(value) if token >= 0 and not ids.has(token)]
        if role is None or role in ROLES or not strangers:
            continue
        name = f"the id {strangers[0]:,} (`{key}`)"
        if not multimodal:
            left = [token for token in id_list(value) if token not in strangers]
            config[key] = left if isinstance(value, list) and left else None
            notes.append(f"the config names {name}, which is no token: it is now unset")
        elif min(strangers) >= rows:
            far |= set(strangers)
            notes.append(f"the config names {name}, past the model's rows: it is left as it is")
        else:
            raise InputError(
                "unmapped-id",
                f"the model's config needs {name}, and the new vocabulary has another row there",
                "trim the model instead, or use a target tokenizer with fewer tokens",
            )
    return far, notes


def _check_offset(path: str, config: Mapping[str, Any]) -> None:
    """Refuse a model that counts the ids of images and sound from a number: they follow the rows of its text."""
    if id_list(config.get("vocab_offset")) not in ([], [0]):
        raise InputError(
            "unmapped-id",
            f"ids from {config['vocab_offset']:,} on are those of images or sound (`{path}.vocab_offset`), and tokswap "
            "cannot move them",
            "save the language model on its own, and change that",
        )


def _check_pad(old: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    _, text = text_config(old)
    before, after = text.get("pad_token_id"), config.get("pad_token_id")
    if before is not None and before != after:
        raise InputError(
            "pad-defines-positions",
            f"{config['model_type']} models count positions from the pad id, "
            f"which would change from {before} to {after}",
            f"use a tokenizer whose pad token has the id {before}",
        )


def _unique(values: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(values))
