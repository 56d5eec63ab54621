"""Numba kernels of matching pursuit, parallel over targets. They check nothing: `_pursuit` passes what fits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

RANK_GUARD = 1e-3
"""An atom (of norm 1) is refused where the norm of its part outside the span of the support is no larger than this."""
_FASTMATH = {"reassoc", "contract", "nsz", "arcp"}


@njit(inline="always")  # type: ignore[untyped-decorator]
def _gather(
    row: np.ndarray, low: int, high: int, threshold: int, index: np.ndarray, value: np.ndarray, found: int
) -> int:
    """Append the scores from `low` to `high` that reach the threshold; return how many there are now.

    Each score is written, and overwritten by the next where it falls short, because a branch that nobody can predict
    costs more. So the arrays have room for one more than there are scores.
    """
    for i in range(low, high):
        score = row[i] & np.uint16(0x7FFF)
        index[found] = i
        value[found] = score
        found += score >= threshold
    return found


@njit(inline="always")  # type: ignore[untyped-decorator]
def _threshold(row: np.ndarray, wanted: int) -> int:
    """Return a score near the wanted rank, by a histogram of every sixteenth score."""
    count = row.shape[0]
    histogram = np.zeros(4096, np.int64)
    samples = 0
    stride = 16 if count >= 16 * wanted else 1
    for i in range(0, count, stride):
        histogram[(row[i] & np.uint16(0x7FFF)) >> 3] += 1
        samples += 1
    aim = wanted * samples * 6 // (count * 5) + (4 if stride > 1 else 0)
    place = 4095
    seen = histogram[place]
    while place > 0 and seen < aim:
        place -= 1
        seen += histogram[place]
    return place << 3


@njit(inline="always")  # type: ignore[untyped-decorator]
def _shorten(index: np.ndarray, value: np.ndarray, shortlist: np.ndarray) -> Any:
    """Write the indices of the largest values to a shortlist; return the smallest of these values."""
    found, wanted = value.shape[0], shortlist.shape[0]
    least = np.partition(value, found - wanted)[found - wanted]
    kept, level = 0, 0
    for i in range(found):
        if value[i] > least:
            shortlist[kept] = index[i]
            kept += 1
    while kept < wanted:
        if value[level] == least:
            shortlist[kept] = index[level]
            kept += 1
        level += 1
    return least


@njit(parallel=True, cache=True)  # type: ignore[untyped-decorator]
def nominate(scores: np.ndarray, words: np.ndarray, shortlist: np.ndarray, weakest: np.ndarray) -> None:
    """Find the largest scores of each row.

    Scores are compared with a threshold four at a time: a sum in each quarter of a word sets its highest bit where the
    score reaches the threshold.

    Args:
        scores: Bits of bfloat16, uint16 [B, N]. Without the sign bit they order like magnitudes.
        words: The same memory, uint64 [B * N // 4].
        shortlist: Gets the indices of the largest scores, in no order, int32 [B, S].
        weakest: Gets the smallest of these scores, uint16 [B].
    """
    count, wanted = scores.shape[1], shortlist.shape[1]
    magnitudes, tops = np.uint64(0x7FFF7FFF7FFF7FFF), np.uint64(0x8000800080008000)
    for b in prange(scores.shape[0]):
        row = scores[b]
        if wanted == count:
            for i in range(count):
                shortlist[b, i] = i
            weakest[b] = 0
            continue
        threshold = _threshold(row, wanted)
        index = np.empty(count + 1, np.int32)
        value = np.empty(count + 1, np.uint16)
        begin = b * count
        first, last = (begin + 3) // 4, (begin + count) // 4  # the words that lie in this row
        blocks = (last - first) // 4 if last > first else 0
        body = first * 4 - begin if blocks else 0
        while True:
            lift = np.uint64(0x8000 - threshold) * np.uint64(0x0001000100010001)
            found = _gather(row, 0, body, threshold, index, value, 0)
            for block in range(blocks):
                at = first + 4 * block
                reach = np.uint64(0)
                for w in range(4):
                    reach |= (words[at + w] & magnitudes) + lift
                if reach & tops:
                    low = body + 16 * block
                    found = _gather(row, low, low + 16, threshold, index, value, found)
            found = _gather(row, body + 16 * blocks, count, threshold, index, value, found)
            if found >= wanted or threshold == 0:
                break
            threshold = max(0, threshold - 16)
        weakest[b] = _shorten(index[:found], value[:found], shortlist[b])


@njit(inline="always", fastmath=_FASTMATH)  # type: ignore[untyped-decorator]
def _dot(a: np.ndarray, b: np.ndarray) -> Any:
    total = np.float32(0)
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@njit(fastmath=_FASTMATH)  # type: ignore[untyped-decorator]
def _correlate(dictionary: np.ndarray, shortlist: np.ndarray, residual: np.ndarray, correlation: np.ndarray) -> Any:
    """Write the correlation of each listed atom, -1 for one that is taken (-1 in the list); return the largest."""
    best = np.float32(0)
    for m in range(shortlist.shape[0]):
        correlation[m] = abs(_dot(dictionary[shortlist[m]], residual)) if shortlist[m] >= 0 else -1
        best = max(best, correlation[m])
    return best


@njit(fastmath=_FASTMATH)  # type: ignore[untyped-decorator]
def _best(
    dictionary: np.ndarray,
    shortlist: np.ndarray,
    near: np.ndarray,
    residual: np.ndarray,
    correlation: np.ndarray,
    fresh: bool,
) -> tuple[Any, int]:
    """Return the largest correlation among the near atoms and its place in the shortlist, -1 for none.

    `fresh` says that `correlation` still holds; else it is computed.
    """
    best, at = np.float32(0), -1
    for m in near:
        if shortlist[m] >= 0:
            value = correlation[m] if fresh else abs(_dot(dictionary[shortlist[m]], residual))
            if value > best:
                best, at = value, m
    return best, at


@njit(fastmath=_FASTMATH)  # type: ignore[untyped-decorator]
def _orthogonalise(atom: np.ndarray, basis: np.ndarray, upper: np.ndarray, support: int) -> Any:
    """Write the part of an atom outside the span of the support to the next row of the basis; return its norm.

    Column `support` of the triangular factor `upper` gets the parts inside. A second pass follows where the first one
    cancels too much.
    """
    new = basis[support]
    for d in range(atom.shape[0]):
        new[d] = atom[d]
    for _ in range(2):
        before = _dot(new, new)
        for i in range(support):
            share = _dot(basis[i], new)
            for d in range(atom.shape[0]):
                new[d] -= share * basis[i, d]
            upper[i, support] += share
        if _dot(new, new) > 0.5 * before:
            break
    height = np.sqrt(_dot(new, new))
    if height <= RANK_GUARD:
        for i in range(support):
            upper[i, support] = 0
    else:
        for d in range(atom.shape[0]):
            new[d] /= height
        upper[support, support] = height
    return height


@njit(fastmath=_FASTMATH)  # type: ignore[untyped-decorator]
def _take_steps(
    dictionary: np.ndarray,
    residual: np.ndarray,
    basis: np.ndarray,
    upper: np.ndarray,
    projections: np.ndarray,
    atoms: np.ndarray,
    support: int,
    shortlist: np.ndarray,
    weakest: Any,
    near_size: int,
    most_steps: int,
    refresh: Any,
    drift: Any,
    tolerance: Any,
) -> tuple[int, bool]:
    """Take steps for one target; return the size of its support, and whether it goes on after a new search."""
    size, k = shortlist.shape[0], atoms.shape[0]
    correlation = np.empty(size, np.float32)
    steps = 0
    moved = np.float32(0)
    bound = refresh * weakest
    while True:
        best = _correlate(dictionary, shortlist, residual, correlation)
        if best <= 0:
            return support, False  # nothing that is left correlates with the residual
        if steps > 0 and best < bound:
            return support, True
        near = np.argsort(correlation)[size - near_size :]
        near_limit = correlation[near[0]] if near_size < size else np.float32(0)
        fresh = True
        while True:
            best, at = _best(dictionary, shortlist, near, residual, correlation, fresh)
            if steps > 0 and best < bound:
                return support, True
            if at < 0 or (not fresh and best < refresh * near_limit):
                break
            fresh = False
            height = _orthogonalise(dictionary[shortlist[at]], basis, upper, support)
            if height <= RANK_GUARD:
                return support, False
            projection = _dot(basis[support], residual)
            moved += projection * projection
            bound = refresh * weakest + drift * np.sqrt(moved)
            for d in range(residual.shape[0]):
                residual[d] -= projection * basis[support, d]
            projections[support], atoms[support] = projection, shortlist[at]
            shortlist[at] = -1
            support += 1
            steps += 1
            if support >= k or _dot(residual, residual) <= tolerance * tolerance:
                return support, False
            if steps >= most_steps:
                return support, True


@njit(parallel=True, cache=True, fastmath=_FASTMATH)  # type: ignore[untyped-decorator]
def advance(
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
    weakest: np.ndarray,
    near_size: int,
    most_steps: int,
    refresh: Any,
    drift: Any,
    tolerance: Any,
) -> None:
    """Take steps for each active target, as long as its shortlist can be trusted. `_pursuit` explains the rule.

    Args:
        dictionary: Atoms of norm 1, float32 [N, D].
        active: The targets, int64 [B]. The next arrays are those of `_pursuit._CpuState`, which are updated.
        residuals: float32 [T, D].
        bases: float32 [T, k, D].
        uppers: float32 [T, k, k].
        projections: float32 [T, k].
        atoms: int64 [T, k].
        supports: int64 [T].
        going: bool [T].
        shortlists: Atoms to choose from, int32 [B, S]; an atom that is taken becomes -1.
        weakest: Smallest correlation in each shortlist, float32 [B]; 0 where all atoms are listed.
        near_size: Atoms of the shortlist that stay in the processor's cache.
        most_steps: Steps before the next search.
        refresh: REFRESH, float32.
        drift: DRIFT / sqrt(D), float32.
        tolerance: Norm of a residual that is small enough, float32.
    """
    for n in prange(active.shape[0]):
        t = active[n]
        supports[t], going[t] = _take_steps(
            dictionary,
            residuals[t],
            bases[t],
            uppers[t],
            projections[t],
            atoms[t],
            supports[t],
            shortlists[n],
            weakest[n],
            near_size,
            most_steps,
            refresh,
            drift,
            tolerance,
        )
