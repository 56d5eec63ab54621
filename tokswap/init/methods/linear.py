"""A linear map from the donor's space to the source's, fitted on the shared tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokswap.init.base import DonorUse, Initializer, Problem, Rows, Sizes
from tokswap.init.made_rows import MadeRows
from tokswap.options.declare import option


@dataclass(frozen=True)
class Linear(Initializer):
    """A new token is its donor row, mapped into the source's space by the map that fits the shared tokens best.

    The mean over the shared tokens is subtracted on both sides first. `least-squares` fits any matrix, with `ridge` as
    regularisation. `procrustes` fits a rotation and one scale; it keeps angles and needs fewer shared tokens. With
    fewer than two shared tokens, each new token gets the mean of its pieces.
    """

    map: str = option("least-squares", "kind of map", choices=("least-squares", "procrustes"))
    ridge: float = option(
        0.01, "with least-squares: added to the Gram matrix, as a share of its mean diagonal", least=0.0
    )

    summary: ClassVar[str] = "the donor row, sent through a linear map that fits the shared tokens"
    reference: ClassVar[str] = "arXiv 2504.17025 (SAVA)"

    def donor_use(self) -> DonorUse:
        """Require the donor."""
        return "required"

    def __call__(self, problem: Problem) -> Rows:
        """Fit the map and apply it."""
        from tokswap.init.methods._combine import mixed_pieces

        donor, anchors = problem.donor, problem.anchors
        assert donor is not None
        if len(anchors) < 2:
            note = (
                f"linear: {len(anchors)} usable shared tokens are too few; each new token gets the mean of its pieces"
            )
            return Rows(mixed_pieces(problem), notes=(note,))
        notes: tuple[str, ...] = ()
        if self.map == "least-squares" and len(anchors) <= donor.width:
            notes = (
                f"linear: {len(anchors):,} usable shared tokens cannot determine a map of {donor.width:,} dimensions, "
                "so the ridge decides the rest; map=procrustes needs fewer",
            )
        source_ids = problem.alignment.source_of[anchors]
        centre, goal = donor.mean(anchors), problem.source.mean(source_ids)
        gram = np.zeros((donor.width, donor.width), np.float64)
        cross = np.zeros((donor.width, problem.source.width), np.float64)
        for theirs, ours in donor.blocks_beside(anchors, problem.source, source_ids):
            theirs = theirs - centre
            gram += theirs.T @ theirs
            cross += theirs.T @ (ours - goal)
        matrix = self._solve(gram, cross).astype(np.float32)
        missing = problem.missing
        rows = MadeRows(len(missing), len(goal), lambda part: goal + (donor.rows(missing[part]) - centre) @ matrix)
        return Rows(rows, notes=notes)

    def _solve(self, gram: np.ndarray, cross: np.ndarray) -> np.ndarray:
        """Return the map, float64 [D_donor, D]; zeros where the shared tokens' donor rows are all equal."""
        total = float(np.trace(gram))
        if total <= 0:
            return np.zeros_like(cross)
        if self.map == "procrustes":
            left, values, right = np.linalg.svd(cross, full_matrices=False)
            # A rotation from a wider donor drops directions, so the scale counts only what it keeps.
            kept = float(np.sum((left.T @ gram) * left.T))
            return np.asarray((left @ right) * (values.sum() / max(kept, 1e-12 * total)))
        from scipy.linalg import solve

        # The least ridge is what rounding needs in directions that no shared token has.
        ridge = max(self.ridge, 1e-9) * total / len(gram)
        gram[np.diag_indices_from(gram)] += ridge
        return np.asarray(solve(gram, cross, assume_a="pos", overwrite_a=True, overwrite_b=True))

    def held(self, sizes: Sizes) -> int:
        """Count the Gram matrix, the targets of the regression, and their solution."""
        return 12 * sizes.donor_width * (sizes.donor_width + sizes.width)

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """Count the Gram matrix, its solution and the map."""
        return 4.0 * width * width * (missing + anchors + width)
