"""Pursuit in rounds: atoms are added, and those that help least are dropped again.

The cost of a pursuit is the search of the dictionary. Textbook OMP searches it before each atom. Here it is searched
four times in all, or up to eight times where k is large for the width. Each round searches one of PARTS parts of it, in
bfloat16, for atoms that correlate with the residual. Some of them are added, the best one first, with a new residual
after each. Then atoms are dropped, always the one that costs least, until the support has the size that is due after
this round. So a poor choice of an early round does not stay, and on embeddings no more is left in the end than textbook
OMP leaves (benchmarks/omp.md).

A target has the atoms d_i of its support, the inverse of their Gram matrix, their weights w_i and the residual r. With
g_i = <d_i, d> and z = inverse g, the part of a new atom d outside the span has the squared norm h = 1 - <g, z>. The
weight of d is <d, r> / h, and the inverse grows by its border. Without atom i, the squared residual is larger by
w_i^2 / inverse_ii.

Reference:
    Dai, Milenkovic 2009 (subspace pursuit), Zhang 2011 (forward-backward greedy algorithm): supports that shrink again
    Reeves 1999 (backward elimination)
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from tokswap.init.pursuit.code import SparseCode, with_ridge
from tokswap.init.pursuit.kernels import ROUND_GUARD, refine
from tokswap.init.pursuit.scores import Scores, low_precision

PARTS = 3
LEAST_LISTED, LEAST_ADDED = 16, 3


@dataclass(frozen=True)
class _Schedule:
    """How a support grows.

    Attributes:
        k: Most atoms in the end.
        width: D.
    """

    k: int
    width: int

    @property
    def listed(self) -> int:
        """Atoms of a part that a round chooses from."""
        return max(3 * self.k // 4, LEAST_LISTED)

    @property
    def added(self) -> int:
        """Atoms that a round adds."""
        return max(3 * self.k // 16, LEAST_ADDED)

    @property
    def most(self) -> int:
        """Size of the largest support."""
        return self.k + self.added

    @property
    def sizes(self) -> list[int]:
        """Size of the support after each round; the more rounds, the harder the task."""
        rounds = min(max(-(-108 * self.k // self.width), 12), 24)
        return [-(-self.k * turn // rounds) for turn in range(1, rounds + 1)]


class CpuRounds:
    """The search by BLAS, everything else by numba."""

    def __init__(self, dictionary: np.ndarray) -> None:
        """Take atoms of norm 1, float32 [N, D]."""
        self.dictionary = dictionary
        whole = torch.from_numpy(dictionary)
        self.parts = [Scores(low_precision(whole[part::PARTS])) for part in range(PARTS)]

    def bytes_per_target(self, k: int) -> int:
        """Count a row of scores for each part, the inverse, and the residual twice."""
        width = int(self.dictionary.shape[1])
        return PARTS * self.parts[0].bytes_per_residual + 8 * _Schedule(k, width).most ** 2 + 8 * width

    def code(self, targets: np.ndarray, k: int, tolerance: float, ridge: float) -> SparseCode:
        """Code targets of norm 1 or 0, float32 [B, D]."""
        schedule = _Schedule(k, targets.shape[1])
        count, most = len(targets), schedule.most
        residual, inverse = targets.copy(), np.zeros((count, most, most))
        atoms, weights = np.zeros((count, most), np.int64), np.zeros((count, most))
        support, searched = np.zeros(count, np.int64), np.zeros(count, np.float32)
        going = np.linalg.norm(targets, axis=1) > 0.5
        for turn, kept in enumerate(schedule.sizes):
            active, part = np.flatnonzero(going), turn % PARTS
            searched[active] += 1 / PARTS
            shortlist = self.parts[part].largest(residual[active], schedule.listed) * PARTS + part
            refine(
                self.dictionary,
                targets,
                active,
                residual,
                atoms,
                weights,
                inverse,
                support,
                going,
                shortlist,
                schedule.added,
                kept,
                tolerance,
            )
        used = torch.arange(k, device="cpu") < torch.from_numpy(support)[:, None]
        found = _weights(torch.from_numpy(inverse[:, :k, :k]), torch.from_numpy(weights[:, :k]), used, ridge).numpy()
        left = np.linalg.norm(residual, axis=1)
        return SparseCode(np.where(used, atoms[:, :k], 0), found, left, support=support, searched=searched)


class TorchRounds:
    """The same in batched torch operations. Places of the support that are not used hold zeros."""

    def __init__(self, dictionary: np.ndarray, device: str) -> None:
        """Take atoms of norm 1, float32 [N, D], to a device."""
        self.dictionary = torch.from_numpy(dictionary).to(device)
        self.parts = [self.dictionary[part::PARTS].bfloat16() for part in range(PARTS)]
        self.wide = torch.float32 if torch.device(device).type == "mps" else torch.float64

    def bytes_per_target(self, k: int) -> int:
        """Count a row of scores and its magnitudes, the inverse twice, and the rows of a round."""
        width = self.dictionary.shape[1]
        schedule = _Schedule(k, width)
        return 4 * len(self.parts[0]) + 16 * schedule.most**2 + 4 * width * (schedule.listed + schedule.most + 3)

    def code(self, targets: np.ndarray, k: int, tolerance: float, ridge: float) -> SparseCode:
        """Code targets of norm 1 or 0, float32 [B, D]."""
        schedule = _Schedule(k, targets.shape[1])
        state = _TorchState.begin(torch.from_numpy(targets).to(self.dictionary.device), schedule.most, self.wide)
        searched = torch.zeros(len(targets), device=self.dictionary.device)
        for turn, kept in enumerate(schedule.sizes):
            active, part = torch.nonzero(state.residual.norm(dim=1) > tolerance)[:, 0], turn % PARTS
            if not len(active):
                break
            searched[active] += 1 / PARTS
            some = state.of(active)
            scores = (some.residual.bfloat16() @ self.parts[part].T).abs()
            shortlist = scores.topk(min(schedule.listed, scores.shape[1]), dim=1).indices * PARTS + part
            some.rows = self.dictionary[some.atoms] * some.used[:, :, None]
            some.add(self.dictionary[shortlist], shortlist, schedule.added, tolerance)
            some.drop(kept, tolerance)
            some.fit()
            state.take(active, some)
        order = state.used.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :k]
        used = state.used.gather(1, order)
        inverse = state.inverse.gather(1, order[:, :, None].expand(-1, -1, state.inverse.shape[2]))
        inverse = inverse.gather(2, order[:, None, :].expand(-1, order.shape[1], -1))
        weights = _weights(inverse, state.weights.gather(1, order), used, ridge)
        atoms = torch.where(used, state.atoms.gather(1, order), 0)
        parts = (atoms, weights, state.residual.norm(dim=1), used.sum(dim=1), searched)
        return SparseCode(*(part.cpu().numpy() for part in parts))


@dataclass
class _TorchState:
    """Supports of some targets.

    Attributes:
        target: [B, D].
        residual: [B, D].
        atoms: int64 [B, K].
        used: Which places hold an atom, bool [B, K].
        weights: [B, K], in the wider type.
        inverse: Inverse Gram matrices, [B, K, K], in the wider type.
        rows: Rows of the atoms, [B, K, D]; only within a round.
    """

    target: torch.Tensor
    residual: torch.Tensor
    atoms: torch.Tensor
    used: torch.Tensor
    weights: torch.Tensor
    inverse: torch.Tensor
    rows: torch.Tensor = field(init=False)

    @classmethod
    def begin(cls, target: torch.Tensor, most: int, wide: torch.dtype) -> _TorchState:
        """Return empty supports with room for `most` atoms."""
        shape, device = (len(target), most), target.device
        return cls(
            target,
            residual=target.clone(),
            atoms=torch.zeros(shape, dtype=torch.int64, device=device),
            used=torch.zeros(shape, dtype=torch.bool, device=device),
            weights=torch.zeros(shape, dtype=wide, device=device),
            inverse=torch.zeros((*shape, most), dtype=wide, device=device),
        )

    def of(self, which: torch.Tensor) -> _TorchState:
        """Return the states of some targets, as copies."""
        return _TorchState(self.target[which], **{name: getattr(self, name)[which] for name in _KEPT})

    def take(self, which: torch.Tensor, some: _TorchState) -> None:
        """Write back what `of` has given."""
        for name in _KEPT:
            getattr(self, name)[which] = getattr(some, name)

    def add(self, near: torch.Tensor, shortlist: torch.Tensor, most: int, tolerance: float) -> None:
        """Add the best atoms of the shortlist, one after the other."""
        line = torch.arange(len(near), device=near.device)
        closed = torch.zeros(shortlist.shape, dtype=torch.bool, device=near.device)
        for _ in range(most):
            correlation = torch.bmm(near, self.residual[:, :, None])[:, :, 0].masked_fill(closed, 0.0)
            place = correlation.abs().argmax(dim=1)
            closed[line, place] = True
            atom, own = near[line, place], correlation[line, place]
            gram = torch.bmm(self.rows, atom[:, :, None]).to(self.inverse.dtype)
            border = torch.bmm(self.inverse, gram)[:, :, 0]
            height = 1 - (border * gram[:, :, 0]).sum(dim=1)
            takes = (own != 0) & (height > ROUND_GUARD**2) & (self.residual.norm(dim=1) > tolerance)
            free = (~self.used).to(torch.int8).argmax(dim=1)
            border[line, free] = -1.0
            factor = torch.where(takes, 1 / height, 0.0)
            self.inverse += factor[:, None, None] * border[:, :, None] * border[:, None, :]
            change = -(own * factor)[:, None] * border
            self.weights += change
            where = line[takes], free[takes]
            self.rows[where], self.atoms[where], self.used[where] = atom[takes], shortlist[line, place][takes], True
            self.residual -= torch.bmm(change[:, None].to(self.rows.dtype), self.rows)[:, 0]

    def drop(self, most: int, tolerance: float) -> None:
        """Drop the atoms that cost least until `most` are left, and then those that the tolerance does not need."""
        line = torch.arange(len(self.atoms), device=self.atoms.device)
        left = self.residual.square().sum(dim=1).to(self.weights.dtype)
        while True:
            diagonal = self.inverse.diagonal(dim1=1, dim2=2)
            cost, place = torch.where(self.used, self.weights.square() / diagonal, torch.inf).min(dim=1)
            goes = (self.used.sum(dim=1) > most) | (left + cost <= tolerance**2)
            if not goes.any():
                return
            column = self.inverse[line, :, place]
            share = torch.where(goes[:, None], column / diagonal[line, place][:, None], 0.0)
            self.weights -= share * self.weights[line, place][:, None]
            self.inverse -= share[:, :, None] * column[:, None, :]
            left += torch.where(goes, cost, 0.0)
            where = line[goes], place[goes]
            self.inverse[where], self.inverse[line[goes], :, place[goes]] = 0.0, 0.0
            self.weights[where], self.rows[where], self.atoms[where], self.used[where] = 0.0, 0.0, 0, False

    def fit(self) -> None:
        """Compute the residual from the weights, and correct both once by what still lies in the span."""
        for corrects in (True, False):
            self.residual = self.target - torch.bmm(self.weights[:, None].to(self.rows.dtype), self.rows)[:, 0]
            if corrects:
                still = torch.bmm(self.rows, self.residual[:, :, None]).to(self.inverse.dtype)
                self.weights += torch.bmm(self.inverse, still)[:, :, 0]


_KEPT = ("residual", "atoms", "used", "weights", "inverse")


def _weights(inverse: torch.Tensor, weights: torch.Tensor, used: torch.Tensor, ridge: float) -> torch.Tensor:
    """Return the weights as float32 [B, k], with a ridge where one is wanted."""
    if ridge:
        # Atoms that were dropped leave numbers behind.
        own = torch.where(used[:, :, None] & used[:, None, :], inverse.double(), 0.0)
        gram = torch.cholesky_inverse(torch.linalg.cholesky(own + torch.diag_embed((~used).double())))
        weights = with_ridge(gram, (gram @ weights.double()[:, :, None])[:, :, 0], ridge)
    return torch.where(used, weights, 0.0).float()
