"""Compare two tokenizers: shared tokens, the treatment of numbers and spaces, and tokens per byte of a text."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from tokswap.tokenizer.alignment import align
from tokswap.tokenizer.describe import digit_scheme, whitespace_scheme
from tokswap.tokenizer.loaded import TokenizerLike, open_tokenizer
from tokswap.tokenizer.probes import TEXTS
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind, Vocabulary, script_of


def compare_tokenizers(
    first: TokenizerLike | Tokenizer, second: TokenizerLike | Tokenizer, texts: dict[str, str] | None = None
) -> dict[str, Any]:
    """Compare two tokenizers.

    Args:
        first: The tokenizer of the source model: a folder, hub id, alias, .gguf file or tokenizer.json, a loaded
            tokenizer, or a loaded model with its tokenizer.
        second: The target tokenizer.
        texts: Name -> text, to count tokens on. By default a sentence in each of several languages.

    Returns:
        Plain data. Lists have one entry per tokenizer, unless noted:
        "families", "sizes": names, and numbers of ids.
        "shared": the number of tokens with the same canonical bytes. "shared_share": their share in each vocabulary.
        "scripts": script -> tokens of the first, of the second, and shared.
        "digits", "whitespace", "begins_with_bos": see `describe_tokenizer`.
        "tokens_per_byte": text -> tokens per byte.
        "specials": special token of the second -> the token of the first that takes its place, or None.
    """
    first, second = open_tokenizer(first), open_tokenizer(second)
    a, b = first.vocabulary, second.vocabulary
    shared = a.produced.keys() & b.produced.keys()
    alignment = align(b, a, bos_first=first.adds_bos)
    specials = np.flatnonzero(b.kind == Kind.SPECIAL).tolist()
    sources = alignment.source_of[specials].tolist()
    return {
        "families": [first.family, second.family],
        "sizes": [len(a), len(b)],
        "shared": len(shared),
        "shared_share": [len(shared) / max(len(own.produced), 1) for own in (a, b)],
        "scripts": _scripts(a, b, shared),
        "digits": [digit_scheme(first), digit_scheme(second)],
        "whitespace": [whitespace_scheme(first), whitespace_scheme(second)],
        "begins_with_bos": [first.adds_bos, second.adds_bos],
        "tokens_per_byte": {
            name: [len(tokenizer.encode(text)) / len(text.encode()) for tokenizer in (first, second)]
            for name, text in (texts or TEXTS).items()
            if text
        },
        "specials": {b.text[token]: a.text[s] if s >= 0 else None for token, s in zip(specials, sources, strict=True)},
    }


def _scripts(a: Vocabulary, b: Vocabulary, shared: set[bytes]) -> dict[str, list[int]]:
    """Return script -> [tokens of a, tokens of b, shared tokens]. The largest script is first."""
    columns = [Counter(map(script_of, token_bytes)) for token_bytes in (a.produced, b.produced, shared)]
    names = sorted(columns[0] | columns[1], key=lambda name: (-max(columns[0][name], columns[1][name]), name))
    return {name: [column[name] for column in columns] for name in names}
