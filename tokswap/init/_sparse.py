"""Sparse combinations of rows and the search for neighbours, which most methods are made of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tokswap.init import Problem
from tokswap.space import EmbeddingSpace

_BLOCK = 4096
_SPARE = 8


def combine(space: EmbeddingSpace, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return float32[M, D], sum over j of weights[m, j] * space.rows(ids[m, j]); ids and weights are [M, k]."""
    result = np.empty((len(ids), space.width), np.float32)
    block = max(1, _BLOCK // max(ids.shape[1], 1))
    for start in range(0, len(ids), block):
        part = slice(start, start + block)
        rows = space.rows(ids[part].reshape(-1)).reshape(*ids[part].shape, space.width)
        result[part] = np.einsum("mk,mkd->md", weights[part], rows)
    return result


def combine_pieces(problem: Problem, weights: np.ndarray | None = None) -> np.ndarray:
    """Return float32[M, D], the weighted mean of the source rows of each missing token's pieces.

    weights: one a piece, as `problem.pieces.ids`, not negative; None for the plain mean. A token without pieces, or
    whose weights are all zero, becomes the mean source row.
    """
    pieces, width = problem.pieces, problem.source.width
    weights = np.ones(len(pieces.ids), np.float32) if weights is None else np.asarray(weights, np.float32)
    result = np.tile(problem.source_mean, (len(problem.missing), 1))
    most = max(problem.memory // (8 * width), 1)
    begin = 0
    while begin < len(result):
        end = max(begin + 1, int(np.searchsorted(pieces.start, pieces.start[begin] + most, "right")) - 1)
        part = slice(int(pieces.start[begin]), int(pieces.start[end]))
        rows = problem.source.rows(pieces.ids[part]) * weights[part, None]
        spelt = begin + np.flatnonzero(np.diff(pieces.start[begin : end + 1]))
        if len(spelt):
            first = pieces.start[spelt] - part.start
            total = np.add.reduceat(weights[part], first)
            sums = np.add.reduceat(rows, first, axis=0)
            result[spelt[total > 0]] = sums[total > 0] / total[total > 0, None]
        begin = end
    return result


def unit(rows: np.ndarray) -> np.ndarray:
    """Return rows of length one; zero rows stay zero."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny))


def nearest(
    queries: EmbeddingSpace,
    query_ids: np.ndarray,
    keys: EmbeddingSpace,
    key_ids: np.ndarray,
    k: int,
    *,
    memory: int,
    device: str = "cpu",
    exact_order: bool = True,
    done: Callable[[int], object] = lambda count: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k keys of the largest cosine for each query, best first: places in key_ids int64[M, k], cosines.

    k is at most len(key_ids). Exact, by products of blocks that fit into `memory` bytes. exact_order: order close
    candidates in float64 and equal ones by their place, so that blocks of another size give the same neighbours.
    """
    import torch

    count, k = len(key_ids), min(k, len(key_ids))
    places = np.zeros((len(query_ids), k), np.int64)
    cosines = np.zeros((len(query_ids), k), np.float32)
    if not k:
        done(len(query_ids))
        return places, cosines
    taken = min(count, k + _SPARE) if exact_order else k
    wide = max(queries.width, keys.width)
    columns = int(np.clip(memory // (16 * wide), min(taken, count), min(count, 1 << 14)))
    lines = int(np.clip(memory // (4 * (2 * columns + 2 * wide + 6 * taken)), 1, _BLOCK))
    held: list[torch.Tensor] = []

    def key_block(start: int) -> torch.Tensor:
        rows = unit(keys.rows(key_ids[start : start + columns]))
        return torch.from_numpy(rows).to(device)

    if 4 * count * keys.width <= memory // 2:
        held = [key_block(start) for start in range(0, count, columns)]
    for begin in range(0, len(query_ids), lines):
        part = slice(begin, begin + lines)
        rows = unit(queries.rows(query_ids[part]))
        block = torch.from_numpy(rows).to(device)
        best = torch.empty((len(rows), 0), device=device)
        index = torch.empty((len(rows), 0), dtype=torch.int64, device=device)
        for n, start in enumerate(range(0, count, columns)):
            scores = block @ (held[n] if held else key_block(start)).T
            value, place = scores.topk(min(taken, scores.shape[1]), dim=1)
            best, index = torch.cat([best, value], 1), torch.cat([index, place + start], 1)
            best, order = best.topk(min(taken, best.shape[1]), dim=1)
            index = index.gather(1, order)
        found, score = index.cpu().numpy(), best.cpu().numpy()
        if exact_order:
            found, score = _ordered(rows, keys, key_ids, found, memory)
        places[part], cosines[part] = found[:, :k], score[:, :k]
        done(len(rows))
    return places, cosines


def _ordered(
    queries: np.ndarray, keys: EmbeddingSpace, key_ids: np.ndarray, found: np.ndarray, memory: int
) -> tuple[np.ndarray, np.ndarray]:
    """Order candidates by their cosine in float64 (rounded, so that equal rows tie), then by place."""
    exact = np.empty(found.shape, np.float64)
    lines = int(np.clip(memory // (24 * found.shape[1] * keys.width), 1, _BLOCK))
    for begin in range(0, len(found), lines):
        part = slice(begin, begin + lines)
        rows = unit(keys.rows(key_ids[found[part].reshape(-1)])).reshape(*found[part].shape, keys.width)
        exact[part] = np.einsum("md,mkd->mk", queries[part].astype(np.float64), rows.astype(np.float64))
    exact = exact.round(6)
    order = np.lexsort((found, -exact), axis=1)
    return np.take_along_axis(found, order, 1), np.take_along_axis(exact, order, 1).astype(np.float32)
