"""How two tokenizers differ: what they share, how they cut numbers and spaces, how many tokens a text takes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from tokswap.tokenizer.alignment import align
from tokswap.tokenizer.describe import digit_scheme, whitespace_scheme
from tokswap.tokenizer.probes import TEXTS
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind, Vocabulary, script_of


def compare_tokenizers(first: Tokenizer, second: Tokenizer, texts: dict[str, str] | None = None) -> dict[str, Any]:
    """Compare two tokenizers.

    texts: name -> text to count tokens on; a sentence in each of several languages by default. Returns plain data:
    sizes, shared (by canonical bytes), scripts (script -> tokens of each and shared), digits, whitespace,
    tokens_per_byte (text -> one number each), specials (second's control token -> first's that would take its place).
    """
    a, b = first.vocabulary, second.vocabulary
    shared = a.id_of.keys() & b.id_of.keys()
    alignment = align(b, a, bos_first=first.adds_bos)
    controls = np.flatnonzero(b.kind == Kind.SPECIAL).tolist()
    sources = alignment.source_of[controls].tolist()
    return {
        "families": [first.family, second.family],
        "sizes": [len(a), len(b)],
        "shared": len(shared),
        "shared_share": [len(shared) / max(len(a.id_of), 1), len(shared) / max(len(b.id_of), 1)],
        "scripts": _scripts(a, b, shared),
        "digits": [digit_scheme(first), digit_scheme(second)],
        "whitespace": [whitespace_scheme(first), whitespace_scheme(second)],
        "begins_with_bos": [first.adds_bos, second.adds_bos],
        "tokens_per_byte": {
            name: [len(tokenizer.encode(text)) / len(text.encode()) for tokenizer in (first, second)]
            for name, text in (texts or TEXTS).items()
            if text
        },
        "specials": {b.text[token]: a.text[s] if s >= 0 else None for token, s in zip(controls, sources, strict=True)},
    }


def _scripts(a: Vocabulary, b: Vocabulary, shared: set[bytes]) -> dict[str, list[int]]:
    """Script -> [tokens of a, tokens of b, shared], the largest first."""
    columns = [Counter(map(script_of, surfaces)) for surfaces in (a.id_of, b.id_of, shared)]
    names = sorted(columns[0] | columns[1], key=lambda name: (-max(columns[0][name], columns[1][name]), name))
    return {name: [column[name] for column in columns] for name in names}
