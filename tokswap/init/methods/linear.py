"""A linear map from the donor's space to the source's, fitted on the shared tokens (as in SAVA, arXiv 2504.17025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokswap.init.base import Problem, option


@dataclass(frozen=True)
class Linear:
    """Maps each new token's donor row into the source's space by a map that fits the shared tokens' rows best.

    Both sides are taken round their means over the shared tokens. `least-squares` is any matrix, held down by `ridge`;
    `procrustes` is a rotation with one scale, which keeps angles and needs fewer shared tokens. With fewer than two
    shared tokens there is nothing to fit, and a new token is the mean of its pieces.
    """

    map: str = option("least-squares", "the kind of map", choices=("least-squares", "procrustes"))
    ridge: float = option(
        0.01, "with least-squares: added to the Gram matrix, as a share of its mean diagonal", least=0.0
    )

    summary: ClassVar[str] = "the donor row, sent through a linear map that fits the shared tokens"
    source: ClassVar[str] = "arXiv 2504.17025 (SAVA)"
    needs_donor: ClassVar[bool] = True

    def __call__(self, problem: Problem) -> np.ndarray:
        """Return float32[M, D]."""
        from tokswap.init.methods._sparse import combine_pieces

        donor, anchors = problem.donor, problem.anchors
        assert donor is not None
        if len(anchors) < 2:
            problem.notes.append(f"linear: {len(anchors)} usable shared tokens are too few; new tokens are piece means")
            return combine_pieces(problem)
        if self.map == "least-squares" and len(anchors) <= donor.width:
            problem.notes.append(
                f"linear: {len(anchors):,} usable shared tokens do not settle a map from {donor.width:,} dimensions; "
                "the ridge decides what they leave open (map=procrustes needs fewer)"
            )
        source_ids = problem.alignment.source_of[anchors]
        centre, goal = donor.mean(anchors), problem.source.mean(source_ids)
        gram = np.zeros((donor.width, donor.width), np.float64)
        cross = np.zeros((donor.width, problem.source.width), np.float64)
        for theirs, ours in zip(donor.blocks(anchors), problem.source.blocks(source_ids), strict=True):
            theirs = theirs - centre
            gram += theirs.T @ theirs
            cross += theirs.T @ (ours - goal)
        matrix = self._solve(gram, cross).astype(np.float32)
        result = np.empty((len(problem.missing), problem.source.width), np.float32)
        at = 0
        for block in donor.blocks(problem.missing):
            result[at : at + len(block)] = goal + (block - centre) @ matrix
            at += len(block)
        return result

    def _solve(self, gram: np.ndarray, cross: np.ndarray) -> np.ndarray:
        """Return the map, float64[D_donor, D]; zero where the shared tokens' rows are all one."""
        total = float(np.trace(gram))
        if total <= 0:
            return np.zeros_like(cross)
        if self.map == "procrustes":
            left, values, right = np.linalg.svd(cross, full_matrices=False)
            # Where the donor is the wider space the rotation drops directions: only what is kept counts as length.
            kept = float(np.sum((left.T @ gram) * left.T))
            return np.asarray((left @ right) * (values.sum() / max(kept, 1e-12 * total)))
        # The least ridge is what rounding needs in directions that no shared token has.
        ridge = max(self.ridge, 1e-9) * total / len(gram)
        from scipy.linalg import solve

        return np.asarray(solve(gram + ridge * np.eye(len(gram)), cross, assume_a="pos"))

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """The Gram matrix, its solution, and the map itself."""
        return 4.0 * width * width * (missing + anchors + width)
