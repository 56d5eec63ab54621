"""The largest scores of each row: a numba kernel, parallel over rows."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from tokswap.compiled import kept_njit


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
def _shorten(index: np.ndarray, value: np.ndarray, shortlist: np.ndarray) -> None:
    """Write the indices of the largest values to a shortlist."""
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


@kept_njit(parallel=True)
def nominate(scores: np.ndarray, words: np.ndarray, shortlist: np.ndarray) -> None:
    """Find the largest scores of each row.

    Scores are compared with a threshold four at a time: a sum in each quarter of a word sets its highest bit where the
    score reaches the threshold.

    Args:
        scores: Bits of bfloat16, uint16 [B, N]. Without the sign bit they order like magnitudes.
        words: The same memory, uint64 [B * N // 4].
        shortlist: Gets the indices of the largest scores, in no order, int32 [B, S].
    """
    count, wanted = scores.shape[1], shortlist.shape[1]
    magnitudes, tops = np.uint64(0x7FFF7FFF7FFF7FFF), np.uint64(0x8000800080008000)
    for b in prange(scores.shape[0]):
        row = scores[b]
        if wanted == count:
            for i in range(count):
                shortlist[b, i] = i
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
        _shorten(index[:found], value[:found], shortlist[b])
