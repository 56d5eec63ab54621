"""Numba kernels of matching pursuit, parallel over targets. They check nothing: `_pursuit` calls them with what fits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

RANK_GUARD = 1e-3
"""An atom whose part outside the span of the support is shorter than this (atoms have length 1) is not taken."""
_FASTMATH = {"reassoc", "contract", "nsz", "arcp"}


@njit(inline="always")  # type: ignore[untyped-decorator]
def _gather(
    row: np.ndarray, low: int, high: int, threshold: int, index: np.ndarray, value: np.ndarray, found: int
) -> int:
    """Append the scores from `low` to `high` that reach the threshold; returns how many there are now.

    Each is written, and overwritten by the next where it falls short: a branch that nobody can predict costs more. So
    the arrays have room for one more than there are scores.
    """
    for i in range(low, high):
        score = row[i] & np.uint16(0x7FFF)
        index[found] = i
        value[found] = score
        found += score >= threshold
    return found


@njit(parallel=True, cache=True)  # type: ignore[untyped-decorator]
def nominate(scores: np.ndarray, words: np.ndarray, shortlist: np.ndarray, weakest: np.ndarray) -> None:
    """Write the indices of the largest scores of each row, in no order, and the smallest of those scores.

    scores: uint16[B, N], bfloat16 bits; without the sign bit they order like magnitudes. words: uint64[B * N // 4], the same
    memory. shortlist: int32[B, S]. A histogram of every sixteenth score gives a threshold near the wanted rank. Scores are
    compared with it four at a time: a sum in each quarter of a word sets its highest bit where the score reaches it.
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
        cut = np.partition(value[:found], found - wanted)[found - wanted]
        kept, level = 0, 0
        for i in range(found):
            if value[i] > cut:
                shortlist[b, kept] = index[i]
                kept += 1
        while kept < wanted:
            if value[level] == cut:
                shortlist[b, kept] = index[level]
                kept += 1
            level += 1
        weakest[b] = cut


@njit(inline="always", fastmath=_FASTMATH)  # type: ignore[untyped-decorator]
def _dot(a: np.ndarray, b: np.ndarray) -> Any:
    total = np.float32(0)
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


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
    limits: np.ndarray,
    near_size: int,
    most_steps: int,
    refresh: Any,
    drift: Any,
    tolerance: Any,
) -> None:
    """Take steps for each active target; see `_pursuit` for the rule, its `_CpuState` for the arrays."""
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
