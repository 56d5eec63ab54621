"""CLP-Transfer: the cosine-weighted mean of all shared tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokswap.init.base import DonorUse, Initializer, Problem, Rows, Sizes
from tokswap.init.made_rows import MadeRows
from tokswap.options.declare import option


@dataclass(frozen=True)
class CLP(Initializer):
    """A new token is the mean of all shared tokens' source rows, weighted by the cosine of the donor rows.

    Negative cosines count as such, as in the paper. The cost does not depend on how many tokens are shared, because
    the sum is one matrix product. A token whose mean cosine is below `floor` gets the mean of its pieces: its weights
    nearly cancel, and division by their sum would make the row huge. Without shared tokens, all new tokens do.
    """

    floor: float = option(0.01, "least mean cosine to the shared tokens", least=1e-6, most=1.0)

    summary: ClassVar[str] = "mean of all shared tokens, weighted by cosine in the donor's space"
    reference: ClassVar[str] = "arXiv 2301.09626"

    def donor_use(self) -> DonorUse:
        """Require the donor."""
        return "required"

    def __call__(self, problem: Problem) -> Rows:
        """Average the shared tokens' rows."""
        from tokswap.init.methods._combine import give_piece_means, mixed_pieces
        from tokswap.init.methods._nearest import unit

        donor, anchors = problem.donor, problem.anchors
        assert donor is not None
        if not len(anchors):
            note = "clp: no shared token is usable; each new token gets the mean of its pieces"
            return Rows(mixed_pieces(problem), notes=(note,))
        total = np.zeros(donor.width, np.float64)
        cross = np.zeros((donor.width, problem.source.width), np.float64)
        source_ids = problem.alignment.source_of[anchors]
        for theirs, ours in donor.blocks_beside(anchors, problem.source, source_ids):
            theirs = unit(theirs)
            total += theirs.sum(axis=0)
            cross += theirs.T @ ours
        missing, least = problem.missing, self.floor * len(anchors)
        weights = [unit(block).astype(np.float64) @ total for block in donor.blocks(missing)]
        weight = np.concatenate([np.zeros(0), *weights])
        outside = weight < least

        def make(part: slice) -> np.ndarray:
            lost = outside[part]
            directions = unit(donor.rows(missing[part])).astype(np.float64)
            rows = np.asarray(directions @ cross / np.where(lost, 1.0, weight[part])[:, None], np.float32)
            give_piece_means(problem, rows, lost, part)
            return rows

        rows = MadeRows(len(missing), problem.source.width, make)
        if not outside.any():
            return Rows(rows)
        count = f"{outside.sum():,} of {len(rows):,} new tokens"
        note = f"clp: {count} resemble no shared token; each gets the mean of its pieces"
        return Rows(rows, notes=(note,))

    def held(self, sizes: Sizes) -> int:
        """Count the sum of products."""
        return 8 * sizes.width * max(sizes.width, sizes.donor_width)

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """Count two matrix products."""
        return 2.0 * width * width * (missing + anchors)
