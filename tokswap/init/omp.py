"""Orthogonal matching pursuit over the shared tokens (arXiv 2506.06607)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokswap.errors import InputError
from tokswap.init import Problem, option
from tokswap.vocab import Kind


@dataclass(frozen=True)
class OMP:
    """Writes each new token's donor row as a few donor rows of shared tokens, and mixes their source rows alike.

    Atoms are the donor rows of the shared tokens, of unit length for the selection, without exact duplicates and
    without untrained rows. `k` above the number of atoms or the donor's width is the same as that number.
    A new token whose donor row is zero becomes the mean source row.
    """

    k: int = option(64, "atoms a token at most", least=1)
    tolerance: float = option(1e-3, "stop when this share of a donor row is left unexplained", least=0.0, most=1.0)
    centre: bool = option(False, "subtract the mean donor row first, and work round the mean source row")
    anchor_filter: bool = option(True, "leave out shared tokens whose donor rows look untrained")
    norm_guard: bool = option(True, "bring the length of new rows into the range of the shared tokens' rows")
    batch: int = option(512, "tokens solved at once", least=1)

    summary: ClassVar[str] = "sparse code over the donor's shared tokens, carried over to the source"
    source: ClassVar[str] = "arXiv 2506.06607"
    needs_donor: ClassVar[bool] = True

    def __call__(self, problem: Problem) -> np.ndarray:
        """Return float32[M, D]; leaves residual, coefficient_norm and support in `problem.details`."""
        import torch
        from tqdm import tqdm

        from tokswap.init._sparse import combine, orthogonal_matching_pursuit

        donor = problem.donor
        if donor is None:
            raise ValueError("OMP needs a donor space")
        anchors = self._atoms(problem)
        if not len(anchors):
            raise InputError(
                "no-anchor",
                "no shared token has a usable donor row, so there is nothing to build new rows from",
                "check that --donor belongs to the target tokenizer, or use --init subword",
            )
        dictionary = donor.rows(anchors)
        donor_mean = dictionary.mean(axis=0) if self.centre else np.zeros(donor.width, np.float32)
        dictionary -= donor_mean
        length = np.linalg.norm(dictionary, axis=1)
        length = np.maximum(length, np.finfo(np.float32).tiny)
        dictionary /= length[:, None]
        with tqdm(total=len(problem.missing), desc=f"omp, {problem.role} rows", unit=" tokens",
                  disable=None if problem.progress else True) as bar:  # fmt: skip
            code = orthogonal_matching_pursuit(
                torch.from_numpy(dictionary).to(problem.device),
                torch.from_numpy(donor.rows(problem.missing) - donor_mean).to(problem.device),
                self.k,
                tolerance=self.tolerance,
                batch=self.batch,
                done=bar.update,
            )
        weights = code.weights / length[code.atoms]
        source_ids = problem.alignment.source_of[anchors]
        rows = combine(problem.source, source_ids[code.atoms], weights)
        if self.centre:
            centre = problem.source.mean(source_ids)
            rows += centre - weights.sum(axis=1, keepdims=True) * centre
        if self.norm_guard:
            low, high = np.percentile(problem.source.norms(source_ids), [0.5, 99.5])
            norms = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
            rows *= np.clip(norms, low, high) / norms
        rows[code.support == 0] = problem.source_mean
        problem.details["residual"] = code.residual
        problem.details["coefficient_norm"] = np.linalg.norm(weights, axis=1)
        problem.details["support"] = code.support.astype(np.float32)
        return np.asarray(rows, np.float32)

    def _atoms(self, problem: Problem) -> np.ndarray:
        """Anchors with distinct, trained donor rows, int64[N]."""
        donor, anchors = problem.donor, problem.anchors
        assert donor is not None
        seen: set[int] = set()
        keep = np.zeros(len(anchors), bool)
        reserved = np.flatnonzero(donor.vocabulary.kind == Kind.UNUSED)
        centre, reach = np.zeros(donor.width, np.float32), -1.0
        if self.anchor_filter and len(reserved) >= 8:
            # Reserved rows show what no training looks like: anchors within their cloud have learnt nothing either.
            centre = donor.mean(reserved)
            away = [np.linalg.norm(block - centre, axis=1) for block in donor.blocks(reserved)]
            reach = float(np.percentile(np.concatenate(away), 90))
        at = 0
        for block in donor.blocks(anchors):
            trained = np.linalg.norm(block - centre, axis=1) > reach
            for n, row in enumerate(block):
                digest = hash(row.tobytes())
                keep[at + n] = trained[n] and digest not in seen
                seen.add(digest)
            at += len(block)
        return anchors[keep]

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """One sweep over the dictionary for each of k steps."""
        return 2.0 * min(self.k, anchors, width) * missing * anchors * width
