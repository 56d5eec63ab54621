"""Figures of a tokenizer on texts, on terms, on parallel texts, and on its own tokens."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tokswap.tokenizer.noise import noisy
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind

_ALPHA = 2.5
"""Order of the entropy that agrees best with the quality of translations."""
_WORD = re.compile(r"[^\W\d_]+")
_NAMED = 10
"""Tokens and terms that are named as examples."""


def renyi_efficiency(counts: np.ndarray, size: int) -> float:
    """Return how evenly a text uses a vocabulary: its Renyi entropy over the largest possible one.

    Args:
        counts: Occurrences of each token (int64 [V]).
        size: The number of ids of the vocabulary.

    Returns:
        A number from 0 (one token) to 1 (all tokens equally often).

    Reference: arXiv 2306.16842
    """
    total = counts.sum()
    if total == 0 or size < 2:
        return 0.0
    shares = counts[counts > 0] / total
    return float(math.log(np.power(shares, _ALPHA).sum()) / (1 - _ALPHA) / math.log(size))


def text_figures(tokenizer: Tokenizer, text: str) -> dict[str, float]:
    """Measure a tokenizer on a text.

    Returns:
        "renyi": Renyi efficiency. "whole_words": share of the words that are a single token, with a space before them.
        "noise_growth": how many times more tokens the text takes with errors like those of OCR (`noisy`).
        "noise_kept": share of its tokens that are also among those of the text with errors.
    """
    ids, others = tokenizer.encode_batch([text, noisy(text)])
    clean, changed = Counter(ids), Counter(others)
    counts = np.bincount(np.array(ids, np.int64), minlength=len(tokenizer.vocabulary))
    words = Counter(_WORD.findall(text))
    whole = tokenizer.tokenize_bytes([b" " + word.encode() for word in words])
    single = sum(count for count, pieces in zip(words.values(), whole, strict=True) if len(pieces) == 1)
    return {
        "renyi": renyi_efficiency(counts, len(tokenizer.vocabulary)),
        "whole_words": single / max(words.total(), 1),
        "noise_growth": len(others) / max(len(ids), 1),
        "noise_kept": (clean & changed).total() / max(len(ids), 1),
    }


def parity(tokenizer: Tokenizer, texts: Mapping[str, str]) -> dict[str, float]:
    """Measure how many more tokens other languages take for the same content.

    Args:
        tokenizer: The tokenizer.
        texts: Language -> the same text in it. The first is what the others are compared with.

    Returns:
        Language -> its tokens over those of the first.

    Reference: arXiv 2305.15425
    """
    counts = {name: len(ids) for name, ids in zip(texts, tokenizer.encode_batch(list(texts.values())), strict=True)}
    first = next(iter(counts.values()), 1)
    return {name: count / max(first, 1) for name, count in counts.items()}


def term_figures(tokenizer: Tokenizer, terms: Sequence[str]) -> dict[str, Any]:
    """Measure how many tokens the terms of a list take, with a space before them.

    Returns:
        "terms": how many there are. "tokens_per_term": the mean. "single": share of the terms that are one token.
        "longest": term -> its tokens, for some that take the most.
    """
    lengths = [len(ids) for ids in tokenizer.tokenize_bytes([b" " + term.encode() for term in terms])]
    worst = sorted(range(len(terms)), key=lambda n: (-lengths[n], n))[:_NAMED]
    return {
        "terms": len(terms),
        "tokens_per_term": sum(lengths) / max(len(terms), 1),
        "single": sum(length == 1 for length in lengths) / max(len(terms), 1),
        "longest": {terms[n]: lengths[n] for n in worst},
    }


def token_figures(tokenizer: Tokenizer) -> dict[str, Any]:
    """Tokenize the bytes of every token of text, and count those that do not come out.

    Returns:
        "unreachable": tokens that no text is tokenized into. "unreachable_tokens": some of them. "ambiguous": those of
        them whose bytes another token or other tokens spell, so that a model can write one text in two ways.
    """
    vocabulary = tokenizer.vocabulary
    is_text = np.isin(vocabulary.kind, (Kind.NORMAL, Kind.BYTE))
    tokens = [token for token in np.flatnonzero(is_text).tolist() if vocabulary.token_bytes[token]]
    spelled = tokenizer.tokenize_bytes([vocabulary.token_bytes[token] for token in tokens])
    lost = [(token, ids) for token, ids in zip(tokens, spelled, strict=True) if ids != [token]]
    token_bytes = vocabulary.token_bytes
    ambiguous = [token for token, ids in lost if b"".join(token_bytes[one] for one in ids) == token_bytes[token]]
    return {
        "unreachable": len(lost),
        "unreachable_tokens": [vocabulary.readable(token) for token, _ in lost[:_NAMED]],
        "ambiguous": len(ambiguous),
    }
