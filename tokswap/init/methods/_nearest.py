"""The search for the nearest rows, by their cosine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK, _COLUMNS = 4096, 1 << 14
_SPARE, _MOST_SPARE = 8, 1024


class HasRows(Protocol):
    """Rows by id: an EmbeddingSpace, or vectors from elsewhere."""

    @property
    def width(self) -> int:
        """Elements of a row."""
        ...

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return float32 [len(ids), width]."""
        ...


@dataclass(frozen=True)
class Array:
    """Rows of an array.

    Attributes:
        array: float32 [n, width], memory-mapped or not.
    """

    array: np.ndarray

    @property
    def width(self) -> int:
        """Elements of a row."""
        return int(self.array.shape[1])

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return float32 [len(ids), width]."""
        return np.asarray(self.array[ids], np.float32)


@dataclass(frozen=True)
class Vectors:
    """Rows by an id of another kind.

    Attributes:
        stored: Where the rows are.
        place: Id -> row of `stored`, -1 without one, int64 [n].
    """

    stored: HasRows
    place: np.ndarray

    @property
    def width(self) -> int:
        """Elements of a row."""
        return self.stored.width

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return float32 [len(ids), width]; zeros for an id without a row."""
        place = self.place[ids]
        rows = np.zeros((len(ids), self.width), np.float32)
        rows[place >= 0] = self.stored.rows(place[place >= 0])
        return rows

    def known(self) -> np.ndarray:
        """Return which ids have a row that is not zero, bool [len(place)]."""
        blocks = (np.arange(n, min(n + _BLOCK, len(self.place))) for n in range(0, len(self.place), _BLOCK))
        return np.concatenate([np.zeros(0, bool), *(self.rows(ids).any(axis=1) for ids in blocks)])


def unit(rows: np.ndarray) -> np.ndarray:
    """Scale rows to norm 1; zero rows stay zero."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny))


def nearest(
    queries: HasRows,
    query_ids: np.ndarray,
    keys: HasRows,
    key_ids: np.ndarray,
    k: int,
    *,
    memory: int,
    device: str = "cpu",
    exact_order: bool = True,
    done: Callable[[int], object] = lambda count: None,
    spare: int = _SPARE,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the keys with the largest cosine to each query. The search is exact.

    Args:
        queries: Rows of the queries.
        query_ids: Their ids, int64 [M].
        keys: Rows of the keys.
        key_ids: Their ids, int64 [N].
        k: How many keys to find, all if there are fewer.
        memory: Bytes that blocks of rows and cosines may take.
        device: Where torch computes.
        exact_order: Order close keys in float64, and equal ones by their place, so that other block sizes give the
            same neighbours. Of more than a thousand equal keys any may be found.
        done: Called with the number of queries that are done since the last call.
        spare: Keys beyond k to compare in float64 at first.

    Returns:
        Places of the keys in `key_ids`, best first, int32 [M, k], and their cosines, float32 [M, k].
    """
    count, k = len(key_ids), min(k, len(key_ids))
    places = np.zeros((len(query_ids), k), np.int32)
    cosines = np.zeros((len(query_ids), k), np.float32)
    if not k:
        done(len(query_ids))
        return places, cosines
    taken = min(count, k + spare) if exact_order else k
    search = _Search(keys, key_ids, taken, max(queries.width, keys.width), memory, device)
    for begin in range(0, len(query_ids), search.lines):
        part = slice(begin, begin + search.lines)
        rows = unit(queries.rows(query_ids[part]))
        found, score = search.top(rows)
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


def search_bytes(keys: int, queries: int, width: int, memory: int) -> int:
    """Return about how much memory `nearest` takes besides its result.

    Args:
        keys: N.
        queries: M.
        width: Elements of a row.
        memory: What blocks may take.
    """
    held = 4 * keys * width if 4 * keys * width <= memory // 2 else 0
    columns = min(keys, memory // (16 * width), _COLUMNS)
    lines = min(queries, _BLOCK, (memory - held) // (8 * (columns + width)))
    return held + 12 * columns * width + 4 * lines * (columns + 2 * width)


class _Search:
    """Products of a block of queries with blocks of keys. All keys are held where half of the memory suffices."""

    def __init__(self, keys: HasRows, ids: np.ndarray, taken: int, width: int, memory: int, device: str) -> None:
        self.keys, self.ids, self.taken, self.device = keys, ids, taken, device
        self.columns = int(np.clip(memory // (16 * width), taken, min(len(ids), _COLUMNS)))
        self.starts = range(0, len(ids), self.columns)
        self.held: list[Tensor] = []
        if 4 * len(ids) * keys.width <= memory // 2:
            self.held = [self._key_block(start) for start in self.starts]
            memory -= 4 * len(ids) * keys.width
        self.lines = int(np.clip(memory // (4 * (2 * self.columns + 2 * width + 6 * taken)), 1, _BLOCK))

    def _key_block(self, start: int) -> Tensor:
        import torch

        return torch.from_numpy(unit(self.keys.rows(self.ids[start : start + self.columns]))).to(self.device)

    def top(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the places and cosines of the `taken` best keys of each query, best first."""
        import torch

        block = torch.from_numpy(rows).to(self.device)
        best = torch.empty((len(rows), 0), device=self.device)
        index = torch.empty((len(rows), 0), dtype=torch.int64, device=self.device)
        for n, start in enumerate(self.starts):
            scores = block @ (self.held[n] if self.held else self._key_block(start)).T
            value, place = scores.topk(min(self.taken, scores.shape[1]), dim=1)
            del scores  # not held beside the next ones
            best, index = torch.cat([best, value], 1), torch.cat([index, place + start], 1)
            best, order = best.topk(min(self.taken, best.shape[1]), dim=1)
            index = index.gather(1, order)
        return index.cpu().numpy(), best.cpu().numpy()


def _ordered(
    queries: np.ndarray, keys: HasRows, key_ids: np.ndarray, found: np.ndarray, memory: int
) -> tuple[np.ndarray, np.ndarray]:
    """Order keys by their cosine in float64 (rounded, so that equal rows tie), then by place."""
    exact = np.empty(found.shape, np.float64)
    lines = int(np.clip(memory // (96 * found.shape[1] * keys.width), 1, _BLOCK))
    for begin in range(0, len(found), lines):
        part = slice(begin, begin + lines)
        rows = unit(keys.rows(key_ids[found[part].reshape(-1)])).reshape(*found[part].shape, keys.width)
        exact[part] = np.einsum("md,mkd->mk", queries[part].astype(np.float64), rows.astype(np.float64))
    exact = exact.round(6)
    order = np.lexsort((found, -exact), axis=1)
    return np.take_along_axis(found, order, 1), np.take_along_axis(exact, order, 1).astype(np.float32)
