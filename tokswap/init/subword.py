"""Mean of the source tokens that spell a token (FVT, arXiv 2402.09977; ReTok, arXiv 2410.04335)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokswap.init import Problem

_BLOCK = 4096


@dataclass(frozen=True)
class Subword:
    """A new token is the mean of the source rows of its pieces; a token without pieces is the mean source row."""

    summary: ClassVar[str] = "mean of the source tokens that spell the new one"
    source: ClassVar[str] = "arXiv 2402.09977 (FVT), arXiv 2410.04335 (ReTok)"
    needs_donor: ClassVar[bool] = False

    def __call__(self, problem: Problem) -> np.ndarray:
        """Return float32[M, D]."""
        pieces = problem.pieces
        result = np.empty((len(problem.missing), problem.source.width), np.float32)
        for begin in range(0, len(result), _BLOCK):
            end = min(begin + _BLOCK, len(result))
            start = pieces.start[begin : end + 1]
            rows = problem.source.rows(pieces.ids[start[0] : start[-1]])
            counts = np.diff(start)
            spelt = np.flatnonzero(counts)
            block = result[begin:end]
            block[:] = problem.source_mean
            if len(spelt):
                block[spelt] = np.add.reduceat(rows, (start[:-1] - start[0])[spelt], axis=0) / counts[spelt, None]
        return result

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """About four pieces a token."""
        return 4.0 * missing * width
