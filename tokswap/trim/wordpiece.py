"""WordPiece: the pieces that a kept piece needs, and the model of a kept set. Pure: parsed JSON in, parsed JSON out.

WordPiece takes the longest piece that fits. So a word whose pieces are all kept keeps its tokenization, whatever else
goes. Where no piece fits, the whole word becomes the unknown token. Each character of a kept piece stays in both its
forms, at the start of a word and inside, so that words of known characters do not become unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def parts_of(model: Mapping[str, Any], ids: Iterable[int]) -> dict[int, tuple[int, ...]]:
    """Find the characters of each piece, and of those characters.

    Args:
        model: The `model` of a tokenizer.json.
        ids: Token ids.

    Returns:
        Id -> the ids of its characters, at the start of a word and inside. The two forms of a character need each
        other.
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
    """Return the model of a kept set.

    Args:
        model: The `model` of a tokenizer.json.
        new_of: Kept id -> new id.
    """
    vocab = {text: new_of[token] for text, token in model["vocab"].items() if token in new_of}
    return {**model, "vocab": dict(sorted(vocab.items(), key=lambda item: item[1]))}
