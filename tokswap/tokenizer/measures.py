"""Figures of a tokenization. Pure: counts in, numbers out."""

from __future__ import annotations

import math

import numpy as np

_ALPHA = 2.5
"""Order of the entropy that agrees best with the quality of translations."""


def renyi_efficiency(counts: np.ndarray, size: int, alpha: float = _ALPHA) -> float:
    """Return how evenly a text uses a vocabulary: its Renyi entropy over the largest possible one.

    Args:
        counts: Occurrences of each token (int64 [V]).
        size: The number of ids of the vocabulary.
        alpha: Order of the entropy, not 1.

    Returns:
        A number from 0 (one token) to 1 (all tokens equally often).

    Reference: arXiv 2306.16842
    """
    total = counts.sum()
    if total == 0 or size < 2:
        return 0.0
    shares = counts[counts > 0] / total
    return float(math.log(np.power(shares, alpha).sum()) / (1 - alpha) / math.log(size))
