"""Unigram: what a piece needs beside it, and the model of a kept set. Parsed JSON in and out.

The likeliest way to cut a text stays the likeliest when others are taken away, so that no piece needs another. Two
things are kept for what a text holds besides: the characters of the kept pieces, without which new words become unknown,
and a piece of the lowest score, which sets the price of the unknown token (tokenizers: the lowest score - 10).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def parts_of(model: Mapping[str, Any], ids: Iterable[int]) -> dict[int, tuple[int, ...]]:
    """Return for each id the pieces that are its characters, for each of these ()."""
    pieces = [piece for piece, _ in model["vocab"]]
    id_of = {piece: token for token, piece in enumerate(pieces) if len(piece) == 1}
    parts: dict[int, tuple[int, ...]] = {}
    for token in ids:
        if token < len(pieces):
            piece = pieces[token]
            parts[token] = () if len(piece) == 1 else tuple({id_of[c] for c in piece if c in id_of})
    return {part: () for own in parts.values() for part in own} | parts


def lowest(model: Mapping[str, Any]) -> int:
    """Return the first id of the lowest score."""
    scores = [score for _, score in model["vocab"]]
    return scores.index(min(scores))


def rebuild(model: Mapping[str, Any], new_of: Mapping[int, int]) -> dict[str, Any]:
    """Return the model of a kept set. new_of: kept id -> new id."""
    unknown = model.get("unk_id")
    vocab = [entry for token, entry in enumerate(model["vocab"]) if token in new_of]
    return {**model, "vocab": vocab, "unk_id": None if unknown is None else new_of[unknown]}
