"""Weighted sums of source rows: of any, and of the pieces that spell a token. Most methods are made of these."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tokswap.checkpoint.embeddings import EmbeddingSpace
from tokswap.init.base import Pieces, Problem
from tokswap.init.made_rows import BLOCK_ELEMENTS, MadeRows

_MIXED_ELEMENTS = 1 << 24


def combine(space: EmbeddingSpace, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return weighted sums of rows.

    Args:
        space: The rows.
        ids: Ids of the summands, int [M, k].
        weights: Their weights, float32 [M, k].

    Returns:
        float32 [M, D].
    """
    import torch

    if not ids.size:
        return np.zeros((len(ids), space.width), np.float32)
    own, place = np.unique(ids, return_inverse=True)
    if len(ids) > 1 and len(own) * space.width > _MIXED_ELEMENTS:
        half = len(ids) // 2
        parts = (slice(0, half), slice(half, len(ids)))
        return np.concatenate([combine(space, ids[part], weights[part]) for part in parts])
    rows, places = torch.from_numpy(space.rows(own)), torch.from_numpy(place.reshape(ids.shape))
    mixed = torch.nn.functional.embedding_bag(
        places, rows, per_sample_weights=torch.from_numpy(np.asarray(weights, np.float32)), mode="sum"
    )
    return mixed.numpy()


def mixed_pieces(problem: Problem, weights: np.ndarray | None = None) -> MadeRows:
    """Return what `combine_pieces` does for all tokens, made in blocks on demand."""
    rows, width = len(problem.pieces.start) - 1, problem.source.width
    return MadeRows(rows, width, lambda part: combine_pieces(problem, weights, part=part))


def combine_pieces(
    problem: Problem,
    weights: np.ndarray | None = None,
    pieces: Pieces | None = None,
    *,
    part: slice | None = None,
) -> np.ndarray:
    """Return the weighted mean of the source rows of each token's pieces.

    A token without pieces, or whose weights are all zero, gets the mean source row.

    Args:
        problem: Where the source rows are.
        weights: One weight per piece, not negative, float [P]; None for the plain mean.
        pieces: The pieces; those of the missing tokens by default.
        part: The tokens to take, with a start and a stop; all by default.

    Returns:
        float32 [n, D].
    """
    pieces, width = problem.pieces if pieces is None else pieces, problem.source.width
    part = slice(0, len(pieces.start) - 1) if part is None else part
    result = np.tile(problem.source_mean, (part.stop - part.start, 1))
    for block in piece_blocks(pieces, min(problem.context.memory // 8, BLOCK_ELEMENTS) // width, part):
        own = slice(int(pieces.start[block.start]), int(pieces.start[block.stop]))
        weight = np.ones(own.stop - own.start, np.float32) if weights is None else np.asarray(weights[own], np.float32)
        rows = problem.source.rows(pieces.ids[own])
        rows *= weight[:, None]
        spelt = block.start + np.flatnonzero(np.diff(pieces.start[block.start : block.stop + 1]))
        if len(spelt):
            first = pieces.start[spelt] - own.start
            total = np.add.reduceat(weight, first)
            sums = np.add.reduceat(rows, first, axis=0)
            result[spelt[total > 0] - part.start] = sums[total > 0] / total[total > 0, None]
    return result


def give_piece_means(problem: Problem, rows: np.ndarray, lost: np.ndarray, part: slice) -> None:
    """Give the mean of their pieces to the tokens that a method has no row for.

    Args:
        problem: Has the pieces and the source rows.
        rows: The rows of some tokens, float32 [n, D]; they change.
        lost: Which of them, bool [n].
        part: The tokens, with a start and a stop.
    """
    if lost.any():
        rows[lost] = combine_pieces(problem, pieces=problem.pieces[part.start + np.flatnonzero(lost)])


def piece_blocks(pieces: Pieces, most: int, part: slice | None = None) -> Iterator[slice]:
    """Yield blocks of tokens that have at most `most` pieces together, or are a single token."""
    begin, count = (0, len(pieces.start) - 1) if part is None else (part.start, part.stop)
    while begin < count:
        end = min(int(np.searchsorted(pieces.start, pieces.start[begin] + max(most, 1), "right")) - 1, count)
        yield slice(begin, max(end, begin + 1))
        begin = max(end, begin + 1)
