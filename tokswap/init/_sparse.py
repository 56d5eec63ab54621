"""Kernels that more than one method uses: batched orthogonal matching pursuit, and sparse combinations of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from tokswap.space import EmbeddingSpace

RANK_GUARD = 1e-3
"""An atom whose part outside the span of the support is shorter than this (atoms have length 1) is not taken."""
_BLOCK = 4096


@dataclass(frozen=True)
class SparseCode:
    """Sparse coefficients of M targets over unit-norm atoms.

    atoms: int64[M, k], atom indices; a place past a target's support holds 0. weights: float32[M, k], 0 there.
    residual: float32[M], the length of what is left over the length of the target (1 for a zero target).
    support: int64[M], the number of atoms used.
    """

    atoms: np.ndarray
    weights: np.ndarray
    residual: np.ndarray
    support: np.ndarray


def orthogonal_matching_pursuit(
    dictionary: torch.Tensor,
    targets: torch.Tensor,
    k: int,
    *,
    tolerance: float = 1e-3,
    batch: int = 512,
    done: Callable[[int], object] = lambda tokens: None,
) -> SparseCode:
    """Code each target as a combination of at most k atoms (Pati et al. 1993; arXiv 2506.06607).

    dictionary: float32[N, D], unit-norm rows. targets: float32[M, D], on the same device. Per step the atom with the
    largest absolute correlation with the residual joins the support, and the target is projected on it again. A
    target stops at k atoms, at a relative residual of `tolerance`, or when the best atom lies in the span of the
    support already (then no other atom can help either). The basis is orthogonalised twice, which keeps it
    orthogonal to working precision (Giraud et al. 2005).
    """
    count, width = dictionary.shape
    k = min(k, count, width)
    atoms = torch.zeros((len(targets), k), dtype=torch.int64)
    weights = torch.zeros((len(targets), k))
    residual = torch.ones(len(targets))
    support = torch.zeros(len(targets), dtype=torch.int64)
    for start in range(0, len(targets), batch):
        part = slice(start, start + batch)
        atoms[part], weights[part], residual[part], support[part] = _pursue(dictionary, targets[part], k, tolerance)
        done(len(targets[part]))
    return SparseCode(atoms.numpy(), weights.numpy(), residual.numpy(), support.numpy())


def _pursue(
    dictionary: torch.Tensor, targets: torch.Tensor, k: int, tolerance: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    count, width = targets.shape
    device = targets.device
    length = targets.norm(dim=1)
    left = targets / length.clamp_min(1e-30)[:, None]
    basis = torch.zeros((count, k, width), device=device)
    upper = torch.eye(k, device=device).repeat(count, 1, 1)
    projections = torch.zeros((count, k), device=device)
    atoms = torch.zeros((count, k), dtype=torch.int64, device=device)
    support = torch.zeros(count, dtype=torch.int64, device=device)
    active = length > 0
    for step in range(k):
        correlation = (left @ dictionary.T).abs_()
        correlation.scatter_(1, atoms[:, :step], -1.0)
        best = correlation.argmax(dim=1)
        atom = dictionary[best]
        along = torch.zeros((count, step), device=device)
        for _ in range(2 if step else 0):
            share = torch.bmm(basis[:, :step], atom[:, :, None])[:, :, 0]
            atom = atom - torch.bmm(share[:, None], basis[:, :step])[:, 0]
            along += share
        height = atom.norm(dim=1)
        active = active & (height > RANK_GUARD)
        if not active.any():
            break
        direction = atom / height.clamp_min(1e-30)[:, None] * active[:, None]
        projection = (direction * left).sum(dim=1)
        left = left - projection[:, None] * direction
        basis[:, step] = direction
        projections[:, step] = projection
        atoms[:, step] = torch.where(active, best, 0)
        upper[:, :step, step] = along * active[:, None]
        upper[:, step, step] = torch.where(active, height, torch.ones_like(height))
        support += active
        active = active & (left.norm(dim=1) > tolerance)
    weights = torch.linalg.solve_triangular(upper, projections[:, :, None], upper=True)[:, :, 0]
    weights = torch.where(torch.arange(k, device=device) < support[:, None], weights, 0.0)
    residual = torch.where(length > 0, left.norm(dim=1), torch.ones_like(length))
    return atoms.cpu(), (weights * length[:, None]).cpu(), residual.cpu(), support.cpu()


def combine(space: EmbeddingSpace, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return float32[M, D], sum over j of weights[m, j] * space.rows(ids[m, j]); ids and weights are [M, k]."""
    result = np.empty((len(ids), space.width), np.float32)
    block = max(1, _BLOCK // max(ids.shape[1], 1))
    for start in range(0, len(ids), block):
        part = slice(start, start + block)
        rows = space.rows(ids[part].reshape(-1)).reshape(*ids[part].shape, space.width)
        result[part] = np.einsum("mk,mkd->md", weights[part], rows)
    return result
