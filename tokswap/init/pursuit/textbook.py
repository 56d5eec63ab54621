"""Textbook orthogonal matching pursuit: the whole dictionary is searched before each atom.

The search is a product in bfloat16 that only nominates: its shortlist is long enough to hold the best atom whatever the
rounding. The choice among the shortlist, the orthogonalisation and the weights are float32.

Reference:
    Pati, Rezaiifar, Krishnaprasad 1993
    arXiv 2506.06607
    Giraud et al. 2005 (a second pass is enough for orthogonality)
"""

from __future__ import annotations

import numpy as np
import torch

from tokswap.init.pursuit.code import SparseCode, with_ridge
from tokswap.init.pursuit.kernels import RANK_GUARD, step
from tokswap.init.pursuit.scores import Scores, low_precision

SHORTLIST = 32


def _weights(upper: torch.Tensor, projection: torch.Tensor, support: torch.Tensor, ridge: float) -> torch.Tensor:
    """Return the weights [B, k] from the triangular factors of the supports and the projections on their bases."""
    used = torch.arange(upper.shape[1], device=upper.device) < support[:, None]
    upper = upper + torch.diag_embed((~used).to(upper.dtype))
    if ridge:
        wide = upper.double()
        projected = (wide.mT @ projection[:, :, None].double())[:, :, 0]
        weights = with_ridge(wide.mT @ wide, projected, ridge).to(upper.dtype)
    else:
        weights = torch.linalg.solve_triangular(upper, projection[:, :, None], upper=True)[:, :, 0]
    return torch.where(used, weights, 0.0)


class CpuTextbook:
    """The search by BLAS, steps by numba."""

    def __init__(self, dictionary: np.ndarray) -> None:
        """Take atoms of norm 1, float32 [N, D]."""
        self.dictionary = dictionary
        self.scores = Scores(low_precision(torch.from_numpy(dictionary)))

    def bytes_per_target(self, k: int) -> int:
        """Count a row of scores, the basis, the triangular factor, and the residual twice."""
        width = int(self.dictionary.shape[1])
        return self.scores.bytes_per_residual + 4 * k * (width + k) + 8 * width

    def code(self, targets: np.ndarray, k: int, tolerance: float, ridge: float) -> SparseCode:
        """Code targets of norm 1 or 0, float32 [B, D]."""
        count, width = targets.shape
        residual = targets.copy()
        basis, upper = np.empty((count, k, width), np.float32), np.zeros((count, k, k), np.float32)
        projection, atoms = np.zeros((count, k), np.float32), np.zeros((count, k), np.int64)
        support, searched = np.zeros(count, np.int64), np.zeros(count, np.float32)
        going = np.linalg.norm(targets, axis=1) > 0.5
        while len(active := np.flatnonzero(going)):
            searched[active] += 1
            shortlist = self.scores.largest(residual[active], SHORTLIST)
            step(
                self.dictionary,
                active,
                residual,
                basis,
                upper,
                projection,
                atoms,
                support,
                going,
                shortlist,
                tolerance,
            )
        factors, projections, sizes = (torch.from_numpy(one) for one in (upper, projection, support))
        weights = _weights(factors, projections, sizes, ridge=ridge).numpy()
        return SparseCode(atoms, weights, np.linalg.norm(residual, axis=1), support=support, searched=searched)


class TorchTextbook:
    """The same in batched torch operations."""

    def __init__(self, dictionary: np.ndarray, device: str) -> None:
        """Take atoms of norm 1, float32 [N, D], to a device."""
        self.dictionary = torch.from_numpy(dictionary).to(device)
        self.low = self.dictionary.bfloat16()

    def bytes_per_target(self, k: int) -> int:
        """Count a row of scores and its magnitudes, the basis, the triangular factor, and the residual twice."""
        count, width = self.dictionary.shape
        return 4 * count + 4 * k * (width + k) + 8 * width

    def code(self, targets: np.ndarray, k: int, tolerance: float, ridge: float) -> SparseCode:
        """Code targets of norm 1 or 0, float32 [B, D]."""
        residual = torch.from_numpy(targets).to(self.dictionary.device)
        count, width = residual.shape
        basis, upper = residual.new_zeros((count, k, width)), residual.new_zeros((count, k, k))
        projection = residual.new_zeros((count, k))
        atoms = torch.zeros((count, k), dtype=torch.int64, device=residual.device)
        active = torch.nonzero(residual.norm(dim=1) > 0.5)[:, 0]
        support, searched = (torch.zeros(count, dtype=torch.int64, device=residual.device) for _ in range(2))
        for used in range(k):  # targets that go on have all the same number of atoms
            if not len(active):
                break
            searched[active] += 1
            left = residual[active]
            size = min(SHORTLIST, len(self.dictionary))
            shortlist = (left.bfloat16() @ self.low.T).abs().topk(size, dim=1).indices
            value, place = torch.bmm(self.dictionary[shortlist], left[:, :, None])[:, :, 0].abs().max(dim=1)
            chosen = shortlist.gather(1, place[:, None])[:, 0]
            own, atom = basis[active, :used], self.dictionary[chosen]
            along = atom.new_zeros((len(active), used))
            for _ in range(2 if used else 0):
                share = torch.bmm(own, atom[:, :, None])[:, :, 0]
                atom = atom - torch.bmm(share[:, None], own)[:, 0]
                along += share
            height = atom.norm(dim=1)
            helps = (height > RANK_GUARD) & (value > 0)
            active, left, atom, along, height, chosen = (
                part[helps] for part in (active, left, atom, along, height, chosen)
            )
            direction = atom / height[:, None]
            along_direction = (direction * left).sum(dim=1)
            residual[active] = left - along_direction[:, None] * direction
            basis[active, used], projection[active, used] = direction, along_direction
            upper[active, :used, used], upper[active, used, used] = along, height
            atoms[active, used] = chosen
            support[active] += 1
            active = active[residual[active].norm(dim=1) > tolerance]
        weights = _weights(upper, projection, support, ridge)
        parts = (atoms, weights, residual.norm(dim=1), support, searched.float())
        return SparseCode(*(part.cpu().numpy() for part in parts))
