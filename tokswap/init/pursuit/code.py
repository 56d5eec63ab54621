"""What a pursuit returns."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch


@dataclass(frozen=True)
class SparseCode:
    """Sparse coefficients of M targets over N atoms of norm 1.

    Attributes:
        atoms: Atom indices, int64 [M, k]; places past a target's support hold 0.
        weights: Their coefficients, float32 [M, k]; 0 past the support.
        residual: Norm of what is left over the norm of the target, float32 [M]; 1 for a zero target.
        support: How many atoms are used, int64 [M].
        searched: How often the dictionary was searched for the target, float32 [M].
    """

    atoms: np.ndarray
    weights: np.ndarray
    residual: np.ndarray
    support: np.ndarray
    searched: np.ndarray

    @property
    def sweeps(self) -> float:
        """Searches of the dictionary per target, on average."""
        return float(self.searched.mean()) if len(self.searched) else 0.0

    @classmethod
    def joined(cls, parts: list[SparseCode]) -> SparseCode:
        """Return the codes of all parts, one after the other."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def with_ridge(gram: torch.Tensor, projected: torch.Tensor, ridge: float) -> torch.Tensor:
    """Return the weights [B, k] that solve (gram + ridge) weights = projected.

    By Cholesky: the batched LU of torch 2.13 is wrong for more than 128 unknowns on several threads.

    Args:
        gram: Products of the atoms, float64 [B, k, k].
        projected: Products of atoms and target, float64 [B, k].
        ridge: Added to the diagonal.
    """
    factor = torch.linalg.cholesky(gram + ridge * torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device))
    return torch.cholesky_solve(projected[:, :, None], factor)[:, :, 0]
