"""Sparse combinations of rows, which most methods end with."""

from __future__ import annotations

import numpy as np

from tokswap.space import EmbeddingSpace

_BLOCK = 4096


def combine(space: EmbeddingSpace, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return float32[M, D], sum over j of weights[m, j] * space.rows(ids[m, j]); ids and weights are [M, k]."""
    result = np.empty((len(ids), space.width), np.float32)
    block = max(1, _BLOCK // max(ids.shape[1], 1))
    for start in range(0, len(ids), block):
        part = slice(start, start + block)
        rows = space.rows(ids[part].reshape(-1)).reshape(*ids[part].shape, space.width)
        result[part] = np.einsum("mk,mkd->md", weights[part], rows)
    return result
