"""Rows that know nothing about the token: the baselines that every other method has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokswap.init.base import Problem, option


@dataclass(frozen=True)
class Mean:
    """Every new token is the mean source row."""

    summary: ClassVar[str] = "the mean source row, the same for every new token"
    source: ClassVar[str] = "https://nlp.stanford.edu/~johnhew/vocab-expansion.html"
    needs_donor: ClassVar[bool] = False

    def __call__(self, problem: Problem) -> np.ndarray:
        """Return float32[M, D]."""
        return np.tile(problem.source_mean, (len(problem.missing), 1))

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """A copy."""
        return float(missing * width)


@dataclass(frozen=True)
class Zero:
    """Every new token is zero; `tokswap verify` reports such rows."""

    summary: ClassVar[str] = "zero rows, for experiments"
    source: ClassVar[str] = "baseline"
    needs_donor: ClassVar[bool] = False

    def __call__(self, problem: Problem) -> np.ndarray:
        """Return float32[M, D]."""
        return np.zeros((len(problem.missing), problem.source.width), np.float32)

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """Nothing to compute."""
        return 0.0


@dataclass(frozen=True)
class Gaussian:
    """A draw from the normal distribution with the source rows' mean and covariance, seeded."""

    scale: float = option(1.0, "standard deviations are multiplied by this", least=0.0)

    summary: ClassVar[str] = "random rows with the source's mean and covariance"
    source: ClassVar[str] = "https://nlp.stanford.edu/~johnhew/vocab-expansion.html"
    needs_donor: ClassVar[bool] = False

    def __call__(self, problem: Problem) -> np.ndarray:
        """Return float32[M, D]."""
        mean, width = problem.source_mean, problem.source.width
        scatter = np.zeros((width, width), np.float64)
        for block in problem.source.blocks(problem.trained):
            centred = (block - mean).astype(np.float64)
            scatter += centred.T @ centred
        # An eigendecomposition takes the rank-deficient covariance of a small vocabulary too; Cholesky would not.
        values, vectors = np.linalg.eigh(scatter / max(len(problem.trained), 1))
        factor = vectors * np.sqrt(np.maximum(values, 0.0))
        noise = np.random.default_rng(problem.seed).standard_normal((len(problem.missing), width))
        return np.asarray(mean + self.scale * (noise @ factor.T), np.float32)

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """Two matrix products."""
        return 2.0 * (missing + anchors) * width * width
