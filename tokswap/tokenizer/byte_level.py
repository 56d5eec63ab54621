"""The byte-level form of a tokenizer's model: the same pieces and scores, spelled in GPT-2's byte alphabet.

Any bytes can be cut with it, those that are no text on their own too. A hypernetwork reads its surface forms from it:
published ones save theirs as their tokenizer.json, and for new ones it is made here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tokswap.errors import InputError
from tokswap.tokenizer.backend import unheard
from tokswap.tokenizer.families import BYTE_LEVEL, SENTENCEPIECE, UNIGRAM
from tokswap.tokenizer.post_processor import nodes
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind, Vocabulary, byte_level_token, sentencepiece_bytes

_UNLIKELY = 10.0
"""How much less likely than the rarest piece a lone byte is."""


def is_byte_level(spec: Mapping[str, Any]) -> bool:
    """Return whether a tokenizer.json spells its tokens in the byte alphabet, whatever its model is."""
    parts = [*nodes(spec.get("pre_tokenizer")), *nodes(spec.get("decoder"))]
    return any(part.get("type") == "ByteLevel" for part in parts)


def byte_level_spec(tokenizer: Tokenizer, rows: int) -> dict[str, Any]:
    """Return the tokenizer.json of a tokenizer's byte-level form.

    Ids below `rows`, the rows of the model's table, mean what they meant; pieces that the tokenizer lacks (single bytes,
    and the beginnings of characters) follow from `rows` on. Control tokens cannot be cut from any text.

    BPE keeps its merges, and characters of several bytes are put together first; Unigram keeps its scores; WordPiece
    becomes a Unigram model that takes the fewest pieces. Raises InputError not-byte-level.
    """
    vocabulary, model = tokenizer.vocabulary, tokenizer.spec["model"]
    names = _names(vocabulary)
    if len(vocabulary) > rows:
        raise InputError(
            "not-byte-level", f"the tokenizer has {len(vocabulary):,} ids, more than the {rows:,} rows of its model"
        )
    if not names:
        raise InputError(
            "not-byte-level",
            "this tokenizer cannot be made byte-level: none of its tokens is a piece of text",
            tokenizer=tokenizer.path,
        )
    if tokenizer.family == BYTE_LEVEL:
        names = {text: token for text, token in model["vocab"].items() if token < rows}
        made = _bpe(model, names, _pairs(model), rows)
    elif tokenizer.family == SENTENCEPIECE:
        merges = [
            (byte_level_token(sentencepiece_bytes(left)), byte_level_token(sentencepiece_bytes(right)))
            for left, right in _pairs(model)
        ]
        made = _bpe(model, names, [*_characters(names), *merges], rows)
    else:
        scores = [entry[1] for entry in model["vocab"]] if tokenizer.family == UNIGRAM else [-1.0] * len(vocabulary)
        made = _unigram(vocabulary, names, scores, rows, model.get("unk_id"))
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": made,
    }


def _names(vocabulary: Vocabulary) -> dict[str, int]:
    """Byte-level spelling -> id of everything that is a piece of text."""
    return {byte_level_token(surface): token for surface, token in vocabulary.id_of.items() if surface}


def _pairs(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The merges of a BPE model; older files join the two sides with a space."""
    pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"])
    return [(left, right) for left, right in pairs]


def _characters(names: Iterable[str]) -> list[tuple[str, str]]:
    """The merges that put together, byte by byte, the characters that the pieces are made of.

    They begin with the first byte of a character and go on with bytes that begin none, so that they never cross from one
    character to the next.
    """
    merges: dict[tuple[str, str], None] = {}
    for name in names:
        begin = 0
        for n in range(1, len(name) + 1):
            if n == len(name) or not 0x80 <= _BYTE[name[n]] < 0xC0:
                merges.update(dict.fromkeys((name[begin:at], name[at]) for at in range(begin + 1, n)))
                begin = n
    return list(merges)


_BYTE = {byte_level_token(bytes([byte])): byte for byte in range(256)}


def _bpe(
    model: Mapping[str, Any], names: Mapping[str, int], merges: Iterable[tuple[str, str]], rows: int
) -> dict[str, Any]:
    vocab = dict(names)
    kept: dict[tuple[str, str], None] = {}
    for name in _BYTE:
        vocab.setdefault(name, rows + len(vocab) - len(names))
    for left, right in merges:
        if left not in vocab or right not in vocab:
            continue
        if left + right not in vocab:
            if len(right) > 1:
                continue
            vocab[left + right] = rows + len(vocab) - len(names)  # the beginning of a character
        kept[left, right] = None
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": bool(model.get("ignore_merges")),
        "vocab": vocab,
        "merges": [list(pair) for pair in kept],
    }


def _unigram(
    vocabulary: Vocabulary, names: Mapping[str, int], scores: list[float], rows: int, unknown: int | None
) -> dict[str, Any]:
    name_of = {token: name for name, token in names.items()}
    normal = [scores[n] for n in name_of if n < len(scores) and vocabulary.kind[n] == Kind.NORMAL]
    least = min(normal, default=0.0) - _UNLIKELY
    vocab: list[list[Any]] = []
    for n in range(rows):
        known = n in name_of and n < len(scores) and vocabulary.kind[n] == Kind.NORMAL
        vocab.append([name_of.get(n, unheard(n)), scores[n] if known else least])
    vocab += [[name, least] for name in _BYTE if name not in names]
    return {"type": "Unigram", "unk_id": unknown or 0, "byte_fallback": False, "vocab": vocab}
