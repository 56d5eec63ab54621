"""Orthogonal matching pursuit over large dictionaries, on CPU (numba) or any torch device.

The cost of matching pursuit is the sweep: the correlation of every residual with every atom. Exact OMP needs one
sweep a step. Here a sweep is a low-precision (bfloat16) matrix product that only nominates: it gives each target a
shortlist, and everything that decides or enters the result (correlations within the shortlist, orthogonalisation,
weights) is float32.

* exact: a new sweep before every step, and a shortlist that is long enough to hold the best atom whatever the
  rounding. The support is that of textbook OMP.
* fast: steps go on within the shortlist for as long as an atom outside is unlikely to be the better one. Outside,
  correlations were at most that of the weakest atom that made the list; since then the residual has moved by some
  distance, and a correlation changes by about that distance / sqrt(D). So a new sweep is due when the best
  correlation inside falls below REFRESH * weakest + DRIFT * distance / sqrt(D). A rule of the same kind holds between
  the shortlist and the few nearest atoms of it, which stay in the processor's cache. Supports differ from textbook
  OMP, residuals hardly do (see benchmarks/omp.md). Dictionaries of few atoms are always searched exactly.

Pati, Rezaiifar, Krishnaprasad 1993; arXiv 2506.06607. Twice is enough for orthogonality: Giraud et al. 2005.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from numba import njit, prange

RANK_GUARD = 1e-3
"""An atom whose part outside the span of the support is shorter than this (atoms have length 1) is not taken."""
REFRESH, DRIFT = 1.1, 1.5
"""See above; larger numbers sweep more often."""
SHORTLIST = 512
NEAR = 64
FEW_ATOMS = 4096
EXACT_SHORTLIST = 32
_FASTMATH = {"reassoc", "contract", "nsz", "arcp"}


@dataclass(frozen=True)
class SparseCode:
    """Sparse coefficients of M targets over N unit-norm atoms.

    atoms: int64[M, k], atom indices; places past a target's support hold 0. weights: float32[M, k], 0 there.
    residual: float32[M], the length of what is left over the length of the target (1 for a zero target).
    support: int64[M], the number of atoms used. sweeps: sweeps of the dictionary a target took, on average.
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
    memory: int = 256 << 20,
    device: str = "cpu",
    done: Callable[[int], object] = lambda tokens: None,
) -> SparseCode:
    """Code each target as a combination of at most k atoms.

    dictionary: float32[N, D], rows of length 1. targets: float32[M, D]. k is cut to min(N, D). A target stops at k
    atoms, at a relative residual of `tolerance`, or when the best atom lies in the span of its support already (then
    no other atom helps either). ridge: added to the Gram matrix of the final least squares, in units of an atom's
    squared length. memory: bytes that a batch of targets may take besides the dictionary (which is held in float32
    and in bfloat16). device: "cpu" takes the numba kernels, anything else torch.
    """
    count, width = dictionary.shape
    k = min(k, count, width)
    batch = int(np.clip(memory // (2 * count + 4 * k * (width + k) + 8 * width), 16, 4096))
    exact = exact or count <= FEW_ATOMS
    on_cpu = torch.device(device).type == "cpu"
    search: Any = _CpuSearch(dictionary) if on_cpu else _TorchSearch(dictionary, device)
    atoms = np.zeros((len(targets), k), np.int64)
    weights = np.zeros((len(targets), k), np.float32)
    residual = np.ones(len(targets), np.float32)
    support = np.zeros(len(targets), np.int64)
    swept = 0
    for start in range(0, len(targets), batch):
        part = slice(start, start + batch)
        length = np.linalg.norm(targets[part], axis=1)
        state = search.begin(targets[part] / np.maximum(length, 1e-30)[:, None], k)
        while len(active := state.active()):
            swept += len(active)
            search.round(state, active, exact, tolerance)
        atoms[part], found, left, support[part] = state.finish(ridge)
        weights[part] = found * length[:, None]
        residual[part] = np.where(length > 0, left, 1.0)
        done(len(length))
    return SparseCode(atoms, weights, residual, support, swept / max(len(targets), 1))


def _solve(upper: torch.Tensor, projection: torch.Tensor, support: torch.Tensor, ridge: float) -> torch.Tensor:
    """Return the weights [B, k] from the triangular factor of the support and the projections on its basis."""
    k = upper.shape[1]
    used = torch.arange(k, device=upper.device) < support[:, None]
    upper = upper + torch.diag_embed((~used).to(upper.dtype))
    if ridge:
        gram = upper.mT @ upper + ridge * torch.eye(k, device=upper.device)
        right = (upper.mT @ projection[:, :, None])[:, :, 0]
        weights = torch.linalg.solve(gram, right)
    else:
        weights = torch.linalg.solve_triangular(upper, projection[:, :, None], upper=True)[:, :, 0]
    return torch.where(used, weights, 0.0)


def _has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 matrices itself."""
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
    """Sweeps by BLAS, everything else by numba, parallel over targets."""

    def __init__(self, dictionary: np.ndarray) -> None:
        self.dictionary = np.ascontiguousarray(dictionary, np.float32)
        full = torch.from_numpy(self.dictionary)
        # Without bfloat16 instructions the product is emulated, far slower than in float32.
        self.low = full.bfloat16() if _has_bfloat16() else full
        numba.set_num_threads(max(1, min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)))

    def begin(self, targets: np.ndarray, k: int) -> _CpuState:
        return _CpuState(targets, k)

    def round(self, state: _CpuState, active: np.ndarray, exact: bool, tolerance: float) -> None:
        """Sweep for the active targets, and take steps for as long as their shortlists may be trusted."""
        scores = torch.from_numpy(state.residual[active]).to(self.low.dtype) @ self.low.T
        bits = scores.bfloat16().view(torch.int16).numpy().view(np.uint16)
        shortlist = np.empty((len(active), min(EXACT_SHORTLIST if exact else SHORTLIST, bits.shape[1])), np.int32)
        weakest = np.empty(len(active), np.uint16)
        _nominate(bits, shortlist, weakest)
        limit = torch.from_numpy(weakest.astype(np.int16)).view(torch.bfloat16).float().numpy()
        complete = shortlist.shape[1] == bits.shape[1]
        drift = 0.0 if complete else DRIFT / self.dictionary.shape[1] ** 0.5
        _advance(
            self.dictionary, active, state.residual, state.basis, state.upper, state.projection, state.atoms,
            state.support, state.going, shortlist, np.zeros_like(limit) if complete else limit,
            min(NEAR, shortlist.shape[1]), 1 if exact else state.atoms.shape[1], np.float32(REFRESH), np.float32(drift),
            np.float32(tolerance),
        )  # fmt: skip


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
        """Sweep for the active targets, and take steps for as long as their shortlists may be trusted."""
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
        for column in (
            range(int(at.min()), used + 1) if len(at) else ()
        ):  # targets of one round may differ in the size of their support
            same = at == column
            state.upper[active[same], :used, column] = along[same]
        state.upper[active, at, at] = height
        state.support[active] += 1
        full = state.support[active] >= state.atoms.shape[1]
        state.going[active] = ~full & (state.residual[active].norm(dim=1) > tolerance)


@njit(parallel=True, cache=True)  # type: ignore[untyped-decorator]
def _nominate(scores: np.ndarray, shortlist: np.ndarray, weakest: np.ndarray) -> None:
    """Write the indices of the largest scores of each row, and the smallest of those scores.

    scores: uint16[B, N], bfloat16 bits; without the sign bit they order like magnitudes. shortlist: int32[B, S].
    A histogram of every sixteenth score gives a threshold near the wanted rank; blocks below it are skipped.
    """
    count, wanted = scores.shape[1], shortlist.shape[1]
    for b in prange(scores.shape[0]):
        row = scores[b]
        if wanted == count:
            for i in range(count):
                shortlist[b, i] = i
            weakest[b] = 0
            continue
        histogram = np.zeros(4096, np.int64)
        samples = 0
        stride = 16 if count >= 16 * wanted else 1
        for i in range(0, count, stride):
            histogram[(row[i] & np.uint16(0x7FFF)) >> 3] += 1
            samples += 1
        aim = wanted * samples * 6 // (count * 5) + (4 if stride > 1 else 0)
        bin_ = 4095
        seen = histogram[bin_]
        while bin_ > 0 and seen < aim:
            bin_ -= 1
            seen += histogram[bin_]
        threshold = bin_ << 3
        index = np.empty(count, np.int32)
        value = np.empty(count, np.uint16)
        found = 0
        while True:
            for low in range(0, count, 64):
                high = min(low + 64, count)
                top = np.uint16(0)
                for i in range(low, high):
                    top = max(top, row[i] & np.uint16(0x7FFF))
                if top >= threshold:
                    for i in range(low, high):
                        score = row[i] & np.uint16(0x7FFF)
                        if score >= threshold:
                            index[found] = i
                            value[found] = score
                            found += 1
            if found >= wanted or threshold == 0:
                break
            threshold = max(0, threshold - 16)
            found = 0
        order = np.argsort(value[:found])
        for i in range(wanted):
            shortlist[b, i] = index[order[found - 1 - i]]
        weakest[b] = value[order[found - wanted]]


@njit(inline="always", fastmath=_FASTMATH)  # type: ignore[untyped-decorator]
def _dot(a: np.ndarray, b: np.ndarray) -> Any:
    total = np.float32(0)
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@njit(parallel=True, cache=True, fastmath=_FASTMATH)  # type: ignore[untyped-decorator]
def _advance(
    dictionary: np.ndarray,
    active: np.ndarray,
    residuals: np.ndarray,
    bases: np.ndarray,
    uppers: np.ndarray,
    projections: np.ndarray,
    atoms: np.ndarray,
    supports: np.ndarray,
    going: np.ndarray,
    shortlists: np.ndarray,
    limits: np.ndarray,
    near_size: int,
    most_steps: int,
    refresh: Any,
    drift: Any,
    tolerance: Any,
) -> None:
    """Take steps for each active target; see the module's docstring for the rule, `_CpuState` for the arrays."""
    size, k = shortlists.shape[1], atoms.shape[1]
    for n in prange(active.shape[0]):
        t = active[n]
        residual, shortlist = residuals[t], shortlists[n]
        correlation = np.empty(size, np.float32)
        steps = 0
        moved = np.float32(0)
        bound = refresh * limits[n]
        trusted = True
        while trusted:
            best = np.float32(0)
            for m in range(size):
                correlation[m] = abs(_dot(dictionary[shortlist[m]], residual)) if shortlist[m] >= 0 else -1
                best = max(best, correlation[m])
            if best <= 0:
                going[t] = False  # nothing that is left correlates with the residual
                break
            if steps > 0 and best < bound:
                break
            near = np.argsort(correlation)[size - near_size :]
            near_limit = correlation[near[0]] if near_size < size else np.float32(0)
            fresh = True
            while True:
                best, at = np.float32(0), -1
                for m in near:
                    if shortlist[m] >= 0:
                        value = correlation[m] if fresh else abs(_dot(dictionary[shortlist[m]], residual))
                        if value > best:
                            best, at = value, m
                if steps > 0 and best < bound:
                    trusted = False
                    break
                if at < 0 or (not fresh and best < refresh * near_limit):
                    trusted = not (at < 0 and fresh)
                    break
                fresh = False
                support = supports[t]
                basis = bases[t]
                atom = dictionary[shortlist[at]].copy()
                for _ in range(2):
                    before = _dot(atom, atom)
                    for i in range(support):
                        share = _dot(basis[i], atom)
                        for d in range(atom.shape[0]):
                            atom[d] -= share * basis[i, d]
                        uppers[t, i, support] += share
                    if _dot(atom, atom) > 0.5 * before:
                        break
                height = np.sqrt(_dot(atom, atom))
                if height <= RANK_GUARD:
                    for i in range(support):
                        uppers[t, i, support] = 0
                    going[t] = False
                    trusted = False
                    break
                for d in range(atom.shape[0]):
                    atom[d] /= height
                projection = _dot(atom, residual)
                moved += projection * projection
                bound = refresh * limits[n] + drift * np.sqrt(moved)
                for d in range(atom.shape[0]):
                    residual[d] -= projection * atom[d]
                    basis[support, d] = atom[d]
                uppers[t, support, support] = height
                projections[t, support] = projection
                atoms[t, support] = shortlist[at]
                supports[t] = support + 1
                shortlist[at] = -1
                steps += 1
                if support + 1 >= k or _dot(residual, residual) <= tolerance * tolerance:
                    going[t] = False
                    trusted = False
                    break
                if steps >= most_steps:
                    trusted = False
                    break
