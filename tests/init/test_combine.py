"""Weighted sums of the rows of the pieces of tokens."""

from __future__ import annotations

import numpy as np
import pytest
from test_methods import NEW, SHARED, WIDTH, in_context, problem

from tokswap.init.methods._combine import combine_pieces


@pytest.mark.parametrize("memory", [1, 1000, 1 << 20])
def test_mixtures_of_pieces_whatever_the_memory(memory: int) -> None:
    task = in_context(problem(), memory=memory)
    weights = np.random.default_rng(1).random(len(task.pieces.ids))
    weights[task.pieces.start[3] : task.pieces.start[6]] = 0
    rows = combine_pieces(task, weights)
    every = task.source.rows(np.arange(SHARED)).astype(np.float64)
    for n in range(NEW):
        part = slice(task.pieces.start[n], task.pieces.start[n + 1])
        share = weights[part]
        wanted = share @ every[task.pieces.ids[part]] / share.sum() if share.sum() else task.source_mean
        np.testing.assert_allclose(rows[n], wanted, atol=1e-5)
    assert rows.shape == (NEW, WIDTH)
