"""WordPiece: characters that the pre-tokenizer makes words of their own, such as punctuation and Chinese characters.

WordPiece marks what continues a word (`##ing`) and not the space before one. So the token of such a character stands
for it with and without a space before it, and `##.` is never produced. Pure: parsed JSON in, ids out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.tokenizer.backend import model_texts
from tokswap.tokenizer.vocabulary import Kind, Vocabulary


def apart_tokens(spec: Mapping[str, Any], vocabulary: Vocabulary, path: Path) -> tuple[set[int], set[int]]:
    """Find the tokens of characters that are always words of their own.

    Args:
        spec: The parsed tokenizer.json of a WordPiece tokenizer.
        vocabulary: Its vocabulary.
        path: Where it is from, for error messages.

    Returns:
        The ids of these tokens, and those of tokens that contain such a character and are never produced.

    Raises:
        InputError: bad-tokenizer.
    """
    added = {entry["id"] for entry in spec.get("added_tokens") or []}
    prefix = spec["model"].get("continuing_subword_prefix") or ""
    ids = [token for token in np.flatnonzero(vocabulary.kind == Kind.NORMAL).tolist() if token not in added]
    bare = {token: vocabulary.text[token].removeprefix(prefix) for token in ids}
    characters = sorted(set().union(*bare.values()))
    parts = model_texts(spec, [f"a{character}a" for character in characters], path)
    apart = {one for one, found in zip(characters, parts, strict=True) if found == ["a", one, "a"]}
    words = {token for token in ids if vocabulary.text[token] in apart}
    return words, {token for token in ids if token not in words and not apart.isdisjoint(bare[token])}
