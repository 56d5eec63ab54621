"""The computed rows of a matrix on their way to the writer: watched, and with neutral rows between them."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from tokswap.checkpoint.embeddings import NewRows, row_norms
from tokswap.errors import InputError
from tokswap.init.made_rows import parts


@dataclass
class MadeNorms:
    """What is seen of the rows of a method while they are made.

    Attributes:
        method: Class of the method, for the message.
        norms: Norms of the rows, float32 [M]; 0 for those that are still to be made.
        seconds: Time spent.
    """

    method: str
    norms: np.ndarray
    seconds: float = 0.0


@dataclass(frozen=True)
class WatchedRows:
    """The rows of a method, whose norms are noted when they are made.

    Attributes:
        rows: The rows, float32 [M, D].
        made: Takes the norms and the time.
    """

    rows: NewRows
    made: MadeNorms

    def __getitem__(self, part: slice) -> np.ndarray:
        begin = time.perf_counter()
        rows = self.rows[part]
        norms = row_norms(rows)
        if not np.isfinite(norms).all():
            raise InputError("method-failed", f"`{self.made.method}` computed non-finite rows")
        self.made.norms[part] = norms
        self.made.seconds += time.perf_counter() - begin
        return rows


@dataclass(frozen=True)
class NeutralAndNew:
    """The rows of a method and the neutral row, put in order when a block of them is needed.

    Attributes:
        rows: What the method computed, float32 [M, D of all matrices that are solved together].
        columns: Those of this matrix.
        neutral: The neutral row, float32 [D].
        missing: Whether each row is the method's next or the neutral one, bool [n].
        shift: Added to every element.
    """

    rows: WatchedRows
    columns: slice
    neutral: np.ndarray
    missing: np.ndarray
    shift: float

    def __len__(self) -> int:
        return len(self.missing)

    def __getitem__(self, part: slice) -> np.ndarray:
        missing = self.missing[part]
        block = np.tile(self.neutral, (len(missing), 1))
        first = int(np.count_nonzero(self.missing[: part.start]))
        places = np.flatnonzero(missing)
        for own in parts(first, first + len(places)):  # a bias is asked for as a whole
            block[places[own.start - first : own.stop - first]] = self.rows[own][:, self.columns]
        block += np.float32(self.shift)
        return block
