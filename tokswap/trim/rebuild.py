"""The tokenizer of a kept set: forced tokens, closure, and every id of the tokenizer files in its new place."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from tokswap.errors import InputError
from tokswap.tokenizer.families import BYTE_LEVEL, SENTENCEPIECE, UNIGRAM, WORDPIECE
from tokswap.tokenizer.post_processor import renumbered, template_ids
from tokswap.tokenizer.tokenizer import CONVERTIBLE, Tokenizer
from tokswap.tokenizer.vocabulary import BYTE_ALPHABET, Kind, is_byte_piece
from tokswap.trim import bpe, unigram, wordpiece
from tokswap.trim.closure import closed

_MODEL: Mapping[str, ModuleType] = {BYTE_LEVEL: bpe, SENTENCEPIECE: bpe, UNIGRAM: unigram, WORDPIECE: wordpiece}


@dataclass(frozen=True)
class Trimmed:
    """A tokenizer with fewer tokens. kept: int64[V_new], ascending: the old id of each new one."""

    tokenizer: Tokenizer
    kept: np.ndarray

    def new_of(self, size: int) -> np.ndarray:
        """Return int64[size], the new id of each old one, -1 where it is gone."""
        table = np.full(size, -1, np.int64)
        table[self.kept] = np.arange(len(self.kept))
        return table


def parts_of(tokenizer: Tokenizer, ids: Iterable[int]) -> dict[int, tuple[int, ...]]:
    """Return what each id, and everything that it leads to, is made from; see `closure`."""
    parts: dict[int, tuple[int, ...]] = _MODEL[tokenizer.family].parts_of(tokenizer.spec["model"], ids)
    return parts


def forced_ids(tokenizer: Tokenizer) -> set[int]:
    """Return the ids without which the tokenizer would not work as it did: control tokens, what its post-processor adds,
    bytes, the space, and the piece that sets the price of the unknown token.

    Without its 256 byte symbols a BPE model has no way to spell what it does not know, and says nothing about it. A
    SentencePiece model would spell the bytes of its mark for the space, which do not become a space again.
    """
    vocabulary, model = tokenizer.vocabulary, tokenizer.spec["model"]
    forced = set(np.flatnonzero(vocabulary.kind == Kind.SPECIAL).tolist())
    forced |= {*vocabulary.roles.values(), *template_ids(tokenizer.spec)}
    if tokenizer.family == BYTE_LEVEL:
        forced |= {model["vocab"][symbol] for symbol in BYTE_ALPHABET if symbol in model["vocab"]}
    elif model.get("byte_fallback"):
        forced |= {token for token, text in enumerate(vocabulary.text) if is_byte_piece(text)}
    if tokenizer.family in (SENTENCEPIECE, UNIGRAM) and "▁" in vocabulary.id_of_text:
        forced.add(vocabulary.id_of_text["▁"])
    if tokenizer.family == UNIGRAM:
        forced.add(unigram.lowest(model))
    return forced


def trim_tokenizer(tokenizer: Tokenizer, keep: Iterable[int]) -> Trimmed:
    """Return the tokenizer with the tokens of `keep`, those it cannot work without, and those they are made from.

    Tokens keep their order. A text whose tokens are all in the result is cut into the same tokens as before. Raises
    InputError unknown-id.
    """
    wanted = {int(token) for token in keep}
    size = len(tokenizer.vocabulary)
    strange = sorted(token for token in wanted if not 0 <= token < size)
    if strange:
        raise InputError(
            "unknown-id",
            f"there is no token {strange[0]}: this tokenizer's ids end at {size - 1:,}",
            file=tokenizer.path,
        )
    wanted |= forced_ids(tokenizer)
    return rebuilt(tokenizer, closed(parts_of(tokenizer, wanted), wanted))


def rebuilt(tokenizer: Tokenizer, ids: Iterable[int]) -> Trimmed:
    """Return the tokenizer of a closed set that holds what is forced."""
    text = tokenizer.vocabulary.text
    kept = np.array(sorted(token for token in ids if text[token]), np.int64)
    new_of = {token: n for n, token in enumerate(kept.tolist())}
    spec: dict[str, Any] = copy.copy(dict(tokenizer.spec))
    spec["model"] = _MODEL[tokenizer.family].rebuild(spec["model"], new_of)
    spec["added_tokens"] = [
        {**entry, "id": new_of[entry["id"]]} for entry in spec.get("added_tokens") or [] if entry["id"] in new_of
    ]
    spec["post_processor"] = renumbered(spec.get("post_processor"), new_of)
    padding = spec.get("padding")
    if padding and padding.get("pad_id") is not None:
        spec["padding"] = {**padding, "pad_id": new_of[padding["pad_id"]]} if padding["pad_id"] in new_of else None
    config = dict(tokenizer.config)
    decoder = config.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        config["added_tokens_decoder"] = {
            str(new_of[int(token)]): entry for token, entry in decoder.items() if int(token) in new_of
        }
    gone = {text[token] for token in range(len(text)) if token not in new_of}
    for key in ("additional_special_tokens", "extra_special_tokens"):  # the classes would add what these name again
        if isinstance(config.get(key), list):
            config[key] = [entry for entry in config[key] if _content(entry) not in gone]
        elif isinstance(config.get(key), dict):
            config[key] = {name: entry for name, entry in config[key].items() if _content(entry) not in gone}
    # What older classes read instead of tokenizer.json has the old ids, and sentencepiece models cannot be edited.
    old = (*CONVERTIBLE, "added_tokens.json", "special_tokens_map.json")  # the last one is in the config already
    files = {name: path for name, path in tokenizer.files.items() if name not in old}
    return Trimmed(dataclasses.replace(tokenizer, spec=spec, config=config, files=files, edited=True), kept)


def _content(entry: Any) -> Any:
    return entry.get("content") if isinstance(entry, dict) else entry
