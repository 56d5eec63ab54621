"""Sparse combinations of rows and the search for neighbours, which most methods are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tokswap.checkpoint.embeddings import EmbeddingSpace
from tokswap.init.base import Pieces, Problem

_BLOCK = 4096
_SPARE, _MOST_SPARE = 8, 1024


class Rows(Protocol):
    """What neighbours are looked for in: an EmbeddingSpace, or vectors from elsewhere."""

    @property
    def width(self) -> int:
        """Elements a row."""
        ...

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return float32[len(ids), width]."""
        ...


@dataclass(frozen=True)
class Vectors:
    """Rows of a table, float32[n, width], by an id of another kind. place: id -> row of the table, -1 without one."""

    table: Rows
    place: np.ndarray

    @property
    def width(self) -> int:
        """Elements a row."""
        return self.table.width

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return float32[len(ids), width]; zeros for an id that has none."""
        place = self.place[ids]
        rows = np.zeros((len(ids), self.width), np.float32)
        rows[place >= 0] = self.table.rows(place[place >= 0])
        return rows

    def known(self) -> np.ndarray:
        """Which ids have a row that is not zero, bool[len(place)]."""
        blocks = (np.arange(n, min(n + _BLOCK, len(self.place))) for n in range(0, len(self.place), _BLOCK))
        return np.concatenate([np.zeros(0, bool), *(self.rows(ids).any(axis=1) for ids in blocks)])


@dataclass(frozen=True)
class Array:
    """A float32[n, width] array, perhaps memory-mapped, as rows."""

    array: np.ndarray

    @property
    def width(self) -> int:
        """Elements a row."""
        return int(self.array.shape[1])

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return float32[len(ids), width]."""
        return np.asarray(self.array[ids], np.float32)


def combine(space: EmbeddingSpace, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return float32[M, D], sum over j of weights[m, j] * space.rows(ids[m, j]); ids and weights are [M, k]."""
    result = np.empty((len(ids), space.width), np.float32)
    block = max(1, _BLOCK // max(ids.shape[1], 1))
    for start in range(0, len(ids), block):
        part = slice(start, start + block)
        rows = space.rows(ids[part].reshape(-1)).reshape(*ids[part].shape, space.width)
        result[part] = np.einsum("mk,mkd->md", weights[part], rows)
    return result


def combine_pieces(problem: Problem, weights: np.ndarray | None = None, pieces: Pieces | None = None) -> np.ndarray:
    """Return float32[n, D], the weighted mean of the source rows of each token's pieces.

    weights: one a piece, not negative; None for the plain mean. pieces: of the missing tokens by default. A token
    without pieces, or whose weights are all zero, becomes the mean source row.
    """
    pieces, width = problem.pieces if pieces is None else pieces, problem.source.width
    weights = np.ones(len(pieces.ids), np.float32) if weights is None else np.asarray(weights, np.float32)
    result = np.tile(problem.source_mean, (len(pieces.start) - 1, 1))
    for block in piece_blocks(pieces, problem.memory // (8 * width)):
        part = slice(int(pieces.start[block.start]), int(pieces.start[block.stop]))
        rows = problem.source.rows(pieces.ids[part]) * weights[part, None]
        spelt = block.start + np.flatnonzero(np.diff(pieces.start[block.start : block.stop + 1]))
        if len(spelt):
            first = pieces.start[spelt] - part.start
            total = np.add.reduceat(weights[part], first)
            sums = np.add.reduceat(rows, first, axis=0)
            result[spelt[total > 0]] = sums[total > 0] / total[total > 0, None]
    return result


def piece_blocks(pieces: Pieces, most: int) -> Iterator[slice]:
    """Yield the tokens in runs that have at most so many pieces together, or are one token."""
    begin, count = 0, len(pieces.start) - 1
    while begin < count:
        end = int(np.searchsorted(pieces.start, pieces.start[begin] + max(most, 1), "right")) - 1
        yield slice(begin, max(end, begin + 1))
        begin = max(end, begin + 1)


def unit(rows: np.ndarray) -> np.ndarray:
    """Return rows of length one; zero rows stay zero."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny))


def nearest(
    queries: Rows,
    query_ids: np.ndarray,
    keys: Rows,
    key_ids: np.ndarray,
    k: int,
    *,
    memory: int,
    device: str = "cpu",
    exact_order: bool = True,
    done: Callable[[int], object] = lambda count: None,
    spare: int = _SPARE,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k keys of the largest cosine for each query, best first: places in key_ids int64[M, k], cosines.

    k is at most len(key_ids). Exact, by products of blocks that fit into `memory` bytes. exact_order: order close
    candidates in float64 and equal ones by their place, so that blocks of another size give the same neighbours (where
    more than a thousand are equal, which of them is left open). spare: candidates beyond k to begin with.
    """
    import torch

    count, k = len(key_ids), min(k, len(key_ids))
    places = np.zeros((len(query_ids), k), np.int64)
    cosines = np.zeros((len(query_ids), k), np.float32)
    if not k:
        done(len(query_ids))
        return places, cosines
    taken = min(count, k + spare) if exact_order else k
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
        tied = begin + np.flatnonzero(score[:, k - 1] == score[:, -1])
        if exact_order and taken < count and spare < _MOST_SPARE and len(tied):  # others may be as near
            places[tied], cosines[tied] = nearest(
                queries, query_ids[tied], keys, key_ids, k, memory=memory, device=device, spare=8 * spare
            )
        done(len(rows))
    return places, cosines


def _ordered(
    queries: np.ndarray, keys: Rows, key_ids: np.ndarray, found: np.ndarray, memory: int
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
