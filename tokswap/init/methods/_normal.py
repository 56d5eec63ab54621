"""Ridge regression by normal equations that take little more memory than half of their Gram matrix."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_PANEL = 512
"""Columns of the Gram matrix that are held together."""


class NormalEquations:
    """Sums of a ridge regression. Of the Gram matrix, only the panels of columns below its diagonal are held.

    Args:
        width: W, the features of an example.
        targets: D, the numbers that are predicted.
    """

    def __init__(self, width: int, targets: int) -> None:
        self._parts = [slice(start, min(start + _PANEL, width)) for start in range(0, width, _PANEL)]
        self._panels = [np.zeros((width - part.start, part.stop - part.start), np.float64) for part in self._parts]
        self._cross = np.zeros((width, targets), np.float64)

    def add(self, features: np.ndarray, targets: np.ndarray) -> None:
        """Count examples. Products are computed in float32 and summed in float64.

        Args:
            features: float32 [n, W].
            targets: float32 [n, D].
        """
        for part, panel in zip(self._parts, self._panels, strict=True):
            panel += features[:, part.start :].T @ features[:, part]
            self._cross[part] += features[:, part].T @ targets

    def solve(self, ridge: float) -> np.ndarray:
        """Return the coefficients, float64 [W, D]. The sums are used up.

        Args:
            ridge: Added to the diagonal, as a share of its mean.
        """
        from scipy.linalg import solve_triangular

        diagonals = [np.einsum("ii->i", panel[: panel.shape[1]]) for panel in self._panels]  # views, to be written to
        mean = sum(float(diagonal.sum()) for diagonal in diagonals) / max(len(self._cross), 1)
        for diagonal in diagonals:
            diagonal += ridge * max(mean, 1e-30)
        self._factor()
        result, panels = self._cross, self._panels
        for part, panel in zip(self._parts, panels, strict=True):
            own = result[part]
            own[:] = solve_triangular(panel[: len(own)], own, lower=True, check_finite=False)
            for other, block in self._below(part, panel):
                result[other] -= block @ own
        for part in reversed(self._parts):
            panel, own = panels.pop(), result[part]  # a panel that was used is given back
            for other, block in self._below(part, panel):
                own -= block.T @ result[other]
            own[:] = solve_triangular(panel[: len(own)], own, lower=True, trans="T", check_finite=False)
        return result

    def _factor(self) -> None:
        """Put the Cholesky factor in the place of the Gram matrix, panel by panel."""
        from scipy.linalg import cholesky, solve_triangular

        for n, (part, panel) in enumerate(zip(self._parts, self._panels, strict=True)):
            for before, left in zip(self._parts[:n], self._panels[:n], strict=True):
                rows = left[part.start - before.start :]
                panel -= rows @ rows[: panel.shape[1]].T
            corner, rest = panel[: panel.shape[1]], panel[panel.shape[1] :]
            corner[:] = cholesky(corner, lower=True, check_finite=False)
            if len(rest):
                rest[:] = solve_triangular(corner, rest.T, lower=True, check_finite=False).T

    def _below(self, part: slice, panel: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield the blocks of a panel below the diagonal, and the rows that they stand in."""
        for other in self._parts:
            if other.start > part.start:
                yield other, panel[other.start - part.start : other.stop - part.start]
