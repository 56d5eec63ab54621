"""Orthogonal matching pursuit over large dictionaries, on CPU (numba) or any torch device.

The cost of matching pursuit is the sweep: the correlation of every residual with every atom. Exact OMP needs one sweep
per step. Here a sweep is a low-precision (bfloat16) matrix product that only nominates: it gives each target a
shortlist. Everything that decides or enters the result is float32: correlations within the shortlist,
orthogonalisation and weights.

* exact: a new sweep before every step, and a shortlist that is long enough to hold the best atom whatever the
  rounding. The support is that of textbook OMP.
* fast: steps go on within the shortlist as long as an atom outside is unlikely to be the better one. Outside,
  correlations were at most that of the weakest atom in the list. Since then the residual has moved by some distance,
  and a correlation changes by about that distance / sqrt(D). So a new sweep is due when the best correlation inside
  falls below REFRESH * weakest + DRIFT * distance / sqrt(D). A similar rule holds between the shortlist and its few
  nearest atoms, which stay in the processor's cache. Supports differ from textbook OMP, residuals hardly do (see
  benchmarks/omp.md). Dictionaries of few atoms are always searched exactly.

Reference:
    Pati, Rezaiifar, Krishnaprasad 1993
    arXiv 2506.06607
    Giraud et al. 2005 (a second pass is enough for orthogonality)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch

from tokswap.init.methods._kernels import RANK_GUARD, advance, nominate
from tokswap.options.groups import WORK_BYTES

REFRESH, DRIFT = 1.2, 0.5
"""See above; larger values sweep more often."""
SHORTLIST = 512
NEAR = 96
FEW_ATOMS = 4096
EXACT_SHORTLIST = 32


@dataclass(frozen=True)
class SparseCode:
    """Sparse coefficients of M targets over N atoms of norm 1.

    Attributes:
        atoms: Atom indices, int64 [M, k]; places past a target's support hold 0.
        weights: Their coefficients, float32 [M, k]; 0 past the support.
        residual: Norm of what is left over the norm of the target, float32 [M]; 1 for a zero target.
        support: How many atoms are used, int64 [M].
        sweeps: Sweeps of the dictionary per target, on average.
    """

    atoms: np.ndarray
    weights: np.ndarray
    residual: np.ndarray
    support: np.ndarray
    sweeps: float


def orthogonal_matching_pursuit(
    dictionary: np.ndarray,
    targets: np.ndarray,
    k: int,
    *,
    exact: bool = False,
    tolerance: float = 1e-3,
    ridge: float = 0.0,
    memory: int = WORK_BYTES,
    device: str = "cpu",
    done: Callable[[int], object] = lambda tokens: None,
) -> SparseCode:
    """Code each target as a combination of at most k atoms.

    A target stops at k atoms, at the tolerance, or when the best atom lies in the span of its support already (then no
    other atom helps either).

    Args:
        dictionary: Atoms of norm 1, float32 [N, D].
        targets: float32 [M, D].
        k: Most atoms per target; at most min(N, D).
        exact: Whether to sweep before every step.
        tolerance: Relative residual that is small enough.
        ridge: Added to the Gram matrix of the final least squares, in units of an atom's squared norm.
        memory: Bytes that a batch of targets may take. The dictionary, held in float32 and bfloat16, comes on top.
        device: "cpu" takes the numba kernels, anything else torch.
        done: Called with the number of targets that are done since the last call.
    """
    count, width = dictionary.shape
    k = min(k, count, width)
    exact = exact or count <= FEW_ATOMS
    on_cpu = torch.device(device).type == "cpu"
    search: Any = _CpuSearch(dictionary) if on_cpu else _TorchSearch(dictionary, device)
    # The scores in bfloat16; in float32 too, where that is emulated.
    score_bytes = 2 if search.low.dtype == torch.bfloat16 else 6
    batch = int(np.clip(memory // (score_bytes * count + 4 * k * (width + k) + 8 * width), 16, 4096))
    atoms = np.zeros((len(targets), k), np.int64)
    weights = np.zeros((len(targets), k), np.float32)
    residual = np.ones(len(targets), np.float32)
    support = np.zeros(len(targets), np.int64)
    swept = 0
    for start in range(0, len(targets), batch):
        part = slice(start, start + batch)
        norms = np.linalg.norm(targets[part], axis=1)
        state = search.begin(targets[part] / np.maximum(norms, 1e-30)[:, None], k)
        while len(active := state.active()):
            swept += len(active)
            search.round(state, active, exact, tolerance)
        atoms[part], found, left, support[part] = state.finish(ridge)
        weights[part] = found * norms[:, None]
        residual[part] = np.where(norms > 0, left, 1.0)
        done(len(norms))
    sweeps = swept / max(len(targets), 1)
    return SparseCode(atoms, weights, residual=residual, support=support, sweeps=sweeps)


def _solve(upper: torch.Tensor, projection: torch.Tensor, support: torch.Tensor, ridge: float) -> torch.Tensor:
    """Return the weights [B, k] from the triangular factors of the supports and the projections on their bases."""
    k = upper.shape[1]
    used = torch.arange(k, device=upper.device) < support[:, None]
    upper = upper + torch.diag_embed((~used).to(upper.dtype))
    if ridge:
        # By Cholesky: the batched LU of torch 2.13 is wrong for more than 128 unknowns on several threads.
        wide = upper.double()
        gram = wide.mT @ wide + ridge * torch.eye(k, dtype=wide.dtype, device=wide.device)
        right = wide.mT @ projection[:, :, None].double()
        weights = torch.cholesky_solve(right, torch.linalg.cholesky(gram))[:, :, 0].to(upper.dtype)
    else:
        weights = torch.linalg.solve_triangular(upper, projection[:, :, None], upper=True)[:, :, 0]
    return torch.where(used, weights, 0.0)


def _has_bfloat16() -> bool:
    """Say whether this processor has bfloat16 matrix instructions."""
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(known and known())


class _CpuState:
    """A batch of targets on the CPU: residuals, orthonormal bases, triangular factors, supports."""

    def __init__(self, targets: np.ndarray, k: int) -> None:
        count, width = targets.shape
        self.residual = np.ascontiguousarray(targets, np.float32)
        self.basis = np.empty((count, k, width), np.float32)
        self.upper = np.zeros((count, k, k), np.float32)
        self.projection = np.zeros((count, k), np.float32)
        self.atoms = np.zeros((count, k), np.int64)
        self.support = np.zeros(count, np.int64)
        self.going = np.linalg.norm(targets, axis=1) > 0.5

    def active(self) -> np.ndarray:
        return np.flatnonzero(self.going)

    def finish(self, ridge: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        upper, projection = torch.from_numpy(self.upper), torch.from_numpy(self.projection)
        weights = _solve(upper, projection, torch.from_numpy(self.support), ridge).numpy()
        return self.atoms, weights, np.linalg.norm(self.residual, axis=1), self.support


class _CpuSearch:
    """Sweeps by BLAS; everything else by numba, parallel over targets."""

    def __init__(self, dictionary: np.ndarray) -> None:
        self.dictionary = np.ascontiguousarray(dictionary, np.float32)
        full = torch.from_numpy(self.dictionary)
        # Without bfloat16 instructions the product is emulated, far slower than in float32.
        self.low = full.bfloat16() if _has_bfloat16() else full
        numba.set_num_threads(max(1, min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)))

    def begin(self, targets: np.ndarray, k: int) -> _CpuState:
        return _CpuState(targets, k)

    def round(self, state: _CpuState, active: np.ndarray, exact: bool, tolerance: float) -> None:
        """Sweep for the active targets, and take steps as long as their shortlists can be trusted."""
        scores = torch.from_numpy(state.residual[active]).to(self.low.dtype) @ self.low.T
        bits = scores.bfloat16().view(torch.int16).numpy().view(np.uint16)
        shortlist = np.empty((len(active), min(EXACT_SHORTLIST if exact else SHORTLIST, bits.shape[1])), np.int32)
        weakest = np.empty(len(active), np.uint16)
        nominate(bits, bits.reshape(-1)[: bits.size // 4 * 4].view(np.uint64), shortlist, weakest)
        limit = torch.from_numpy(weakest.astype(np.int16)).view(torch.bfloat16).float().numpy()
        complete = shortlist.shape[1] == bits.shape[1]
        drift = 0.0 if complete else DRIFT / self.dictionary.shape[1] ** 0.5
        advance(
            self.dictionary,
            active,
            state.residual,
            state.basis,
            state.upper,
            state.projection,
            state.atoms,
            state.support,
            state.going,
            shortlist,
            np.zeros_like(limit) if complete else limit,
            min(NEAR, shortlist.shape[1]),
            1 if exact else state.atoms.shape[1],
            np.float32(REFRESH),
            np.float32(drift),
            np.float32(tolerance),
        )


class _TorchState:
    """A batch of targets on a torch device; the fields of `_CpuState`."""

    def __init__(self, targets: torch.Tensor, k: int) -> None:
        count, width = targets.shape
        self.residual = targets
        self.basis = targets.new_zeros((count, k, width))
        self.upper = targets.new_zeros((count, k, k))
        self.projection = targets.new_zeros((count, k))
        self.atoms = torch.zeros((count, k), dtype=torch.int64, device=targets.device)
        self.support = torch.zeros(count, dtype=torch.int64, device=targets.device)
        self.going = targets.norm(dim=1) > 0.5

    def active(self) -> torch.Tensor:
        return torch.nonzero(self.going)[:, 0]

    def finish(self, ridge: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        weights = _solve(self.upper, self.projection, self.support, ridge)
        parts = (self.atoms, weights, self.residual.norm(dim=1), self.support)
        return tuple(part.cpu().numpy() for part in parts)  # type: ignore[return-value]


class _TorchSearch:
    """The same search in batched torch operations; targets step together and wait for the slowest of their round."""

    def __init__(self, dictionary: np.ndarray, device: str) -> None:
        self.dictionary = torch.from_numpy(np.ascontiguousarray(dictionary, np.float32)).to(device)
        self.low = self.dictionary.bfloat16()
        self.device = device

    def begin(self, targets: np.ndarray, k: int) -> _TorchState:
        return _TorchState(torch.from_numpy(np.ascontiguousarray(targets, np.float32)).to(self.device), k)

    def round(self, state: _TorchState, active: torch.Tensor, exact: bool, tolerance: float) -> None:
        """Sweep for the active targets, and take steps as long as their shortlists can be trusted."""
        size = min(EXACT_SHORTLIST if exact else SHORTLIST, len(self.dictionary))
        scores, shortlist = (state.residual[active].bfloat16() @ self.low.T).abs().topk(size, dim=1)
        limit = scores[:, -1].float() * REFRESH * (size < len(self.dictionary))
        drift = DRIFT / self.dictionary.shape[1] ** 0.5 * (size < len(self.dictionary))
        begun = state.residual[active].square().sum(dim=1)
        open_ = torch.ones_like(shortlist, dtype=torch.bool)
        step = 0
        while len(active):
            near = self.dictionary[shortlist]
            correlation = torch.bmm(near, state.residual[active][:, :, None])[:, :, 0].abs()
            value, place = correlation.masked_fill(~open_, -1.0).max(dim=1)
            hopeless = value <= 0
            state.going[active[hopeless]] = False
            moved = (begun - state.residual[active].square().sum(dim=1)).clamp_min(0).sqrt()
            stay = ~hopeless & ((value >= limit + drift * moved) | (step == 0))
            active, shortlist, open_, limit, begun, place = (
                part[stay] for part in (active, shortlist, open_, limit, begun, place)
            )
            if not len(active):
                return
            open_[torch.arange(len(active), device=self.device), place] = False
            self._take(state, active, shortlist.gather(1, place[:, None])[:, 0], tolerance)
            stay = state.going[active]
            active, shortlist, open_, limit, begun = (part[stay] for part in (active, shortlist, open_, limit, begun))
            step += 1
            if exact:
                return

    def _take(self, state: _TorchState, active: torch.Tensor, chosen: torch.Tensor, tolerance: float) -> None:
        """Add one atom to the support of each active target, or stop those that it cannot help."""
        used = int(state.support[active].max())
        basis, atom = state.basis[active, :used], self.dictionary[chosen]
        along = atom.new_zeros((len(active), used))
        for _ in range(2 if used else 0):
            share = torch.bmm(basis, atom[:, :, None])[:, :, 0]
            atom = atom - torch.bmm(share[:, None], basis)[:, 0]
            along += share
        height = atom.norm(dim=1)
        helps = height > RANK_GUARD
        state.going[active[~helps]] = False
        active, atom, along, height, chosen = (part[helps] for part in (active, atom, along, height, chosen))
        direction = atom / height[:, None]
        projection = (direction * state.residual[active]).sum(dim=1)
        state.residual[active] -= projection[:, None] * direction
        at = state.support[active]
        state.basis[active, at] = direction
        state.projection[active, at] = projection
        state.atoms[active, at] = chosen
        # Targets of one round may differ in the size of their support.
        for column in range(int(at.min()), used + 1) if len(at) else ():
            same = at == column
            state.upper[active[same], :used, column] = along[same]
        state.upper[active, at, at] = height
        state.support[active] += 1
        full = state.support[active] >= state.atoms.shape[1]
        state.going[active] = ~full & (state.residual[active].norm(dim=1) > tolerance)
