"""Unigram: the pieces that a kept piece needs, and the model of a kept set. Pure: parsed JSON in, parsed JSON out.

The likeliest tokenization of a text stays the likeliest when others become impossible, so no piece needs another piece.
Two things are kept for the rest of a text. The characters of the kept pieces stay, because new words become unknown
without them. A piece with the lowest score stays, because the tokenizers library derives the score of the unknown token
from it (the lowest score - 10).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def parts_of(model: Mapping[str, Any], ids: Iterable[int]) -> dict[int, tuple[int, ...]]:
    """Find the characters of each piece.

    Args:
        model: The `model` of a tokenizer.json.
        ids: Token ids.

    Returns:
        Id -> the ids of its characters. A single character has none.
    """
    pieces = [piece for piece, _ in model["vocab"]]
    id_of = {piece: token for token, piece in enumerate(pieces) if len(piece) == 1}
    parts: dict[int, tuple[int, ...]] = {}
    for token in ids:
        if token < len(pieces) and len(pieces[token]) > 1:
            parts[token] = tuple({id_of[c] for c in pieces[token] if c in id_of})
    return parts


def rebuild(model: Mapping[str, Any], new_of: Mapping[int, int]) -> dict[str, Any]:
    """Return the model of a kept set.

    Args:
        model: The `model` of a tokenizer.json.
        new_of: Kept id -> new id.
    """
    unknown = model.get("unk_id")
    vocab = [entry for token, entry in enumerate(model["vocab"]) if token in new_of]
    return {**model, "vocab": vocab, "unk_id": None if unknown is None else new_of[unknown]}


def lowest(model: Mapping[str, Any]) -> int:
    """Return the first id with the lowest score."""
    scores = [score for _, score in model["vocab"]]
    return scores.index(min(scores))
