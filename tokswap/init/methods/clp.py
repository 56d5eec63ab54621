"""CLP-Transfer: the cosine-weighted mean of all shared tokens (arXiv 2301.09626)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokswap.init.base import Problem, option


@dataclass(frozen=True)
class CLP:
    """A new token is the mean of all shared tokens' source rows, each counting its cosine to the new token's donor row.

    Negative cosines count as such, as in the paper. The sum over all shared tokens is one matrix product, whatever
    their number. A token whose mean cosine is below `floor` has no place between them (its weights nearly cancel, and
    dividing by their sum would blow the row up): it becomes the mean of its pieces, and so do all new tokens where
    there is no shared token.
    """

    floor: float = option(0.01, "the least mean cosine that a row is made from", least=1e-6, most=1.0)

    summary: ClassVar[str] = "mean of all shared tokens, weighted by cosine in the donor's space"
    source: ClassVar[str] = "arXiv 2301.09626"
    needs_donor: ClassVar[bool] = True

    def __call__(self, problem: Problem) -> np.ndarray:
        """Return float32[M, D]."""
        from tokswap.init.methods._sparse import combine_pieces, unit

        donor, anchors = problem.donor, problem.anchors
        assert donor is not None
        if not len(anchors):
            problem.notes.append("clp: there is no usable shared token; new tokens are piece means")
            return combine_pieces(problem)
        total = np.zeros(donor.width, np.float64)
        cross = np.zeros((donor.width, problem.source.width), np.float64)
        source_ids = problem.alignment.source_of[anchors]
        for theirs, ours in zip(donor.blocks(anchors), problem.source.blocks(source_ids), strict=True):
            theirs = unit(theirs)
            total += theirs.sum(axis=0)
            cross += theirs.T @ ours
        result = np.empty((len(problem.missing), problem.source.width), np.float32)
        outside = np.zeros(len(result), bool)
        at = 0
        for block in donor.blocks(problem.missing):
            part = slice(at, at + len(block))
            directions = unit(block).astype(np.float64)
            weight = directions @ total
            outside[part] = weight < self.floor * len(anchors)
            result[part] = directions @ cross / np.where(outside[part], 1.0, weight)[:, None]
            at += len(block)
        if outside.any():
            result[outside] = combine_pieces(problem, pieces=problem.pieces[np.flatnonzero(outside)])
            problem.notes.append(
                f"clp: {outside.sum():,} of {len(outside):,} new tokens are unlike all shared ones; they are piece means"
            )
        return result

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """Two matrix products."""
        return 2.0 * width * width * (missing + anchors)
