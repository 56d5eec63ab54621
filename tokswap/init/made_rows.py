"""Rows that are made when they are written, so that no matrix of new rows is ever held whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tokswap.checkpoint.embeddings import NewRows

BLOCK = 2048
"""Most rows that are made at a time."""
BLOCK_ELEMENTS = 1 << 22
"""Most elements; 16 MB in float32."""

Make = Callable[[slice], np.ndarray]
"""Makes the rows of a part, float32 [n, D]; the part has a start and a stop."""


class MadeRows:
    """Rows made in blocks on demand.

    The blocks begin at multiples of their size, so a row does not depend on who asks for it. The last block is kept.
    """

    def __init__(self, count: int, width: int, make: Make) -> None:
        """Describe the rows.

        Args:
            count: M, how many there are.
            width: D, the elements of each.
            make: Makes a block of them.
        """
        self._shape, self._make = (count, width), make
        self._size = max(1, min(BLOCK, BLOCK_ELEMENTS // max(width, 1)))
        self._at, self._block = -1, np.empty((0, width), np.float32)

    def __len__(self) -> int:
        return self._shape[0]

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, _ = part.indices(len(self))
        result = np.empty((max(stop - start, 0), self._shape[1]), np.float32)
        for piece in parts(start, stop, self._size):
            block = piece.start // self._size
            if block != self._at:
                whole = slice(block * self._size, min((block + 1) * self._size, len(self)))
                self._at, self._block = -1, np.empty((0, self._shape[1]), np.float32)  # not held beside the next one
                self._at, self._block = block, self._make(whole)
            own = slice(piece.start - block * self._size, piece.stop - block * self._size)
            result[piece.start - start : piece.stop - start] = self._block[own]
        return result


class Interleaved:
    """Rows of several makers, each row by one of them.

    Args:
        makers: What makes the rows; each makes its own, in their order.
        which: Who makes each row, int [M].
        width: D, the elements of a row.
    """

    def __init__(self, makers: Sequence[NewRows], which: np.ndarray, width: int) -> None:
        self._makers, self._which, self._width = makers, which, width

    def __len__(self) -> int:
        return len(self._which)

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, _ = part.indices(len(self))
        which = self._which[start:stop]
        result = np.empty((len(which), self._width), np.float32)
        for n, rows in enumerate(self._makers):
            own = which == n
            first = int(np.count_nonzero(self._which[:start] == n))
            count = int(np.count_nonzero(own))
            if count:
                result[own] = rows[first : first + count]
        return result


def parts(start: int, stop: int, size: int = BLOCK) -> Iterator[slice]:
    """Split a range of rows at the edges of blocks."""
    while start < stop:
        end = min((start // size + 1) * size, stop)
        yield slice(start, end)
        start = end
