"""The tokenizer of a kept set: the tokens that it needs, and its files in new ids."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from tokswap.tokenizer.families import BYTE_LEVEL, SENTENCEPIECE, UNIGRAM, WORDPIECE
from tokswap.tokenizer.post_processor import renumbered, template_ids
from tokswap.tokenizer.tokenizer import CONVERTIBLE, Tokenizer
from tokswap.tokenizer.vocabulary import BYTE_ALPHABET, Kind, is_byte_piece
from tokswap.trim import bpe, unigram, wordpiece

_MODEL: Mapping[str, ModuleType] = {BYTE_LEVEL: bpe, SENTENCEPIECE: bpe, UNIGRAM: unigram, WORDPIECE: wordpiece}
_TOKEN_LISTS = ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens")
"""Keys of tokenizer_config.json that list tokens."""


@dataclass(frozen=True)
class Trimmed:
    """A tokenizer with fewer tokens.

    Attributes:
        tokenizer: The new tokenizer.
        kept: Source id of each of its ids, ascending (int64 [V_new]).
    """

    tokenizer: Tokenizer
    kept: np.ndarray

    def new_of(self, size: int) -> np.ndarray:
        """Return the new id of each source id, -1 if it is gone (int64 [size]).

        Args:
            size: Number of source ids.
        """
        new_ids = np.full(size, -1, np.int64)
        new_ids[self.kept] = np.arange(len(self.kept))
        return new_ids


def parts_of(tokenizer: Tokenizer, ids: Iterable[int]) -> dict[int, tuple[int, ...]]:
    """Find the ids that each id needs, and those that they need; see `closure`.

    Args:
        tokenizer: The tokenizer.
        ids: Token ids.
    """
    parts: dict[int, tuple[int, ...]] = _MODEL[tokenizer.family].parts_of(tokenizer.spec["model"], ids)
    return parts


def added_ids(tokenizer: Tokenizer) -> set[int]:
    """Return the ids of the added tokens, special or not.

    Models are trained to read and write them whole, and no corpus need contain one: tool calls, thoughts, timestamps.

    Args:
        tokenizer: The tokenizer.
    """
    special = np.flatnonzero(tokenizer.vocabulary.kind == Kind.SPECIAL).tolist()
    return {int(entry["id"]) for entry in tokenizer.spec.get("added_tokens") or []}.union(special)


def forced_ids(tokenizer: Tokenizer) -> set[int]:
    """Return the ids that every trim keeps: `added_ids` and `spelling_ids`.

    Args:
        tokenizer: The tokenizer.
    """
    return added_ids(tokenizer) | spelling_ids(tokenizer)


def spelling_ids(tokenizer: Tokenizer) -> set[int]:
    """Return the ids without which the tokenizer cannot spell or frame a text as before.

    These are the tokens with a role, the tokens that the post-processor adds, the bytes, the space, and the piece that
    sets the score of the unknown token. A BPE model without its 256 byte symbols silently leaves out unknown
    characters. A SentencePiece model without `▁` spells the bytes of that mark, which do not decode to a space.

    Args:
        tokenizer: The tokenizer.
    """
    vocabulary, model = tokenizer.vocabulary, tokenizer.spec["model"]
    forced = {*vocabulary.roles.values(), *template_ids(tokenizer.spec)}
    if tokenizer.family == BYTE_LEVEL:
        forced |= {model["vocab"][symbol] for symbol in BYTE_ALPHABET if symbol in model["vocab"]}
    elif model.get("byte_fallback"):
        forced |= {token for token, text in enumerate(vocabulary.text) if is_byte_piece(text)}
    if tokenizer.family in (SENTENCEPIECE, UNIGRAM) and "▁" in vocabulary.id_of_text:
        forced.add(vocabulary.id_of_text["▁"])
    if tokenizer.family == UNIGRAM:
        forced.add(unigram.lowest(model))
    return forced


def rebuilt(tokenizer: Tokenizer, ids: Iterable[int]) -> Trimmed:
    """Return the tokenizer of a closed set of ids.

    Args:
        tokenizer: The tokenizer.
        ids: A closed set (see `closure`) that holds `forced_ids`.
    """
    text = tokenizer.vocabulary.text
    kept = np.array(sorted(token for token in ids if text[token]), np.int64)
    new_of = {token: n for n, token in enumerate(kept.tolist())}
    model = _MODEL[tokenizer.family].rebuild(tokenizer.spec["model"], new_of)
    return Trimmed(renumbered_tokenizer(tokenizer, model, new_of), kept)


def renumbered_tokenizer(tokenizer: Tokenizer, model: Mapping[str, Any], new_of: Mapping[int, int]) -> Tokenizer:
    """Return a tokenizer with another model, whose other files follow its ids.

    Args:
        tokenizer: The tokenizer.
        model: The new `model` of its tokenizer.json.
        new_of: Old id -> new id, for all ids of `forced_ids` that stay.
    """
    # Older classes read these files instead of tokenizer.json. They have the old ids, and a sentencepiece model cannot
    # be edited. The config already holds what special_tokens_map.json says.
    old = (*CONVERTIBLE, "added_tokens.json", "special_tokens_map.json")
    spec = _new_spec(tokenizer, new_of)
    return dataclasses.replace(
        tokenizer,
        spec={**spec, "model": _with_added(model, spec["added_tokens"])},
        config=_new_config(tokenizer, new_of),
        files={name: path for name, path in tokenizer.files.items() if name not in old},
        edited=True,
    )


def _new_spec(tokenizer: Tokenizer, new_of: Mapping[int, int]) -> dict[str, Any]:
    """Return tokenizer.json in new ids, but for its model."""
    spec = dict(tokenizer.spec)
    spec["added_tokens"] = [
        {**entry, "id": new_of[entry["id"]]} for entry in spec.get("added_tokens") or [] if entry["id"] in new_of
    ]
    spec["post_processor"] = renumbered(spec.get("post_processor"), new_of)
    padding = spec.get("padding")
    if padding and padding.get("pad_id") is not None:
        spec["padding"] = {**padding, "pad_id": new_of[padding["pad_id"]]} if padding["pad_id"] in new_of else None
    return spec


def _with_added(model: Mapping[str, Any], added: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a model that lists the added tokens between its ids: the library gives others the ids after its own."""
    vocab = model["vocab"]
    if isinstance(vocab, list):  # Unigram: an id is a place in the list, so that nothing is between
        return dict(model)
    last = max(vocab.values(), default=-1)
    between = {entry["content"]: entry["id"] for entry in added if entry["id"] < last}
    return {**model, "vocab": dict(sorted({**vocab, **between}.items(), key=lambda item: item[1]))}


def _new_config(tokenizer: Tokenizer, new_of: Mapping[int, int]) -> dict[str, Any]:
    """Return tokenizer_config.json in new ids, without the tokens that are gone."""
    config = dict(tokenizer.config)
    decoder = config.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        config["added_tokens_decoder"] = {
            str(new_of[int(token)]): entry for token, entry in decoder.items() if int(token) in new_of
        }
    gone = {text for token, text in enumerate(tokenizer.vocabulary.text) if text and token not in new_of}
    for key in _TOKEN_LISTS:  # the classes add again what these name
        if isinstance(config.get(key), list):
            config[key] = [entry for entry in config[key] if _content(entry) not in gone]
        elif isinstance(config.get(key), dict):
            config[key] = {name: entry for name, entry in config[key].items() if _content(entry) not in gone}
    return {key: entry for key, entry in config.items() if not (key.endswith("_token") and _content(entry) in gone)}


def _content(entry: Any) -> str:
    content = entry.get("content") if isinstance(entry, dict) else entry
    return content if isinstance(content, str) else ""
