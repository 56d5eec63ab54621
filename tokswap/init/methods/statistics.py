"""Rows that know nothing about the token: the baselines that every other method has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokswap.init.base import Initializer, Problem, Rows, Sizes
from tokswap.init.made_rows import MadeRows
from tokswap.options.declare import option


@dataclass(frozen=True)
class Mean(Initializer):
    """Every new token gets the mean source row."""

    summary: ClassVar[str] = "the mean source row, the same for every new token"
    reference: ClassVar[str] = "https://nlp.stanford.edu/~johnhew/vocab-expansion.html"

    def __call__(self, problem: Problem) -> Rows:
        """Repeat the mean row."""
        mean = problem.source_mean
        return Rows(MadeRows(len(problem.missing), len(mean), lambda part: np.tile(mean, (part.stop - part.start, 1))))

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """Count a copy."""
        return float(missing * width)


@dataclass(frozen=True)
class Zero(Initializer):
    """Every new token gets a row of zeros; `tokswap verify` reports such rows."""

    summary: ClassVar[str] = "zero rows, for experiments"
    reference: ClassVar[str] = "baseline"

    def __call__(self, problem: Problem) -> Rows:
        """Return zeros."""
        width = problem.source.width
        return Rows(
            MadeRows(len(problem.missing), width, lambda part: np.zeros((part.stop - part.start, width), np.float32))
        )

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """Count nothing."""
        return 0.0


@dataclass(frozen=True)
class Gaussian(Initializer):
    """Every new token gets a draw from the normal distribution that has the source rows' mean and covariance.

    The seed decides the draws.
    """

    scale: float = option(1.0, "factor for the standard deviations", least=0.0)

    summary: ClassVar[str] = "random rows with the source's mean and covariance"
    reference: ClassVar[str] = "https://nlp.stanford.edu/~johnhew/vocab-expansion.html"

    def __call__(self, problem: Problem) -> Rows:
        """Draw the rows."""
        mean, width = problem.source_mean, problem.source.width
        scatter = np.zeros((width, width), np.float64)
        for block in problem.source.blocks(problem.trained):
            centred = (block - mean).astype(np.float64)
            scatter += centred.T @ centred
        # An eigendecomposition takes the rank-deficient covariance of a small vocabulary too; Cholesky would not.
        values, vectors = np.linalg.eigh(scatter / max(len(problem.trained), 1))
        factor = vectors * np.sqrt(np.maximum(values, 0.0))
        factor *= self.scale
        seed = problem.context.seed

        def make(part: slice) -> np.ndarray:
            noise = np.random.default_rng((seed, part.start)).standard_normal((part.stop - part.start, width))
            return np.asarray(mean + noise @ factor.T, np.float32)

        return Rows(MadeRows(len(problem.missing), width, make))

    def held(self, sizes: Sizes) -> int:
        """Count the covariance and its eigenvectors."""
        return 40 * sizes.width**2

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """Count two matrix products."""
        return 2.0 * (missing + anchors) * width * width
