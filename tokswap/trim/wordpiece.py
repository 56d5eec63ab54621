"""WordPiece: what a piece needs beside it, and the model of a kept set. Parsed JSON in and out.

The longest piece that fits is taken, so a word whose pieces are all kept is cut as before whatever else goes. A
word that comes to a stop anywhere becomes the unknown token as a whole: the characters of kept pieces are kept in both
their forms, so that no word of theirs does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def parts_of(model: Mapping[str, Any], ids: Iterable[int]) -> dict[int, tuple[int, ...]]:
    """Return for each id the pieces that are its characters, at the start of a word and inside.

    The two forms of a character need each other.
    """
    vocab: Mapping[str, int] = model["vocab"]
    prefix = model.get("continuing_subword_prefix") or ""
    text_of = {token: text for text, token in vocab.items()}
    parts: dict[int, tuple[int, ...]] = {}
    stack = list(ids)
    while stack:
        token = stack.pop()
        if token in text_of and token not in parts:
            text = text_of[token].removeprefix(prefix)
            found = {vocab[form] for c in set(text) for form in (c, prefix + c) if form in vocab}
            parts[token] = tuple(sorted(found - {token}))
            stack += parts[token]
    return parts


def rebuild(model: Mapping[str, Any], new_of: Mapping[int, int]) -> dict[str, Any]:
    """Return the model of a kept set. new_of: kept id -> new id."""
    vocab = {text: new_of[token] for text, token in model["vocab"].items() if token in new_of}
    return {**model, "vocab": dict(sorted(vocab.items(), key=lambda item: item[1]))}
