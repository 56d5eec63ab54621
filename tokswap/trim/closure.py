"""Which tokens a kept token cannot do without, and which to give up first. Pure.

`parts` is a graph: id -> the ids that a tokenizer needs before it can produce that id (see bpe.py, unigram.py and
wordpiece.py). A set of ids is *closed* when it holds the parts of each of its ids.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np

Parts = Callable[[Iterable[int]], Mapping[int, tuple[int, ...]]]
"""Ids -> the parts of each of them, and of their parts, and so on."""


def closed(parts: Mapping[int, tuple[int, ...]], ids: Iterable[int]) -> set[int]:
    """Return the smallest closed set that holds some ids."""
    found: set[int] = set()
    stack = list(ids)
    while stack:
        token = stack.pop()
        if token not in found:
            found.add(token)
            stack += parts.get(token, ())
    return found


def pruned(
    parts: Mapping[int, tuple[int, ...]], ids: Collection[int], forced: Collection[int], score: np.ndarray, size: int
) -> set[int]:
    """Return a closed subset of a closed set, of at most `size` ids, or of as few as `forced` (closed too) allows.

    Leaf first: of the ids that nothing else needs, the one with the lowest score goes, until enough have gone. What was
    kept for the sake of others alone has no score of its own, so it goes with the last token that needed it. Two that need
    each other go together, by the higher of their scores.
    score: float[V].
    """
    kept = set(ids)
    twin = {token: part for token in kept for part in parts.get(token, ()) if token in parts.get(part, ())}
    needed_by = Counter(part for token in kept for part in parts.get(token, ()) if part != twin.get(token))
    leaves: list[tuple[float, int]] = []

    def offer(token: int) -> None:
        pair = {token, twin.get(token, token)}
        if all(one in kept and one not in forced and not needed_by[one] for one in pair):
            heapq.heappush(leaves, (max(float(score[one]) for one in pair), -token))

    for token in ids:
        offer(token)
    while len(kept) > size and leaves:
        token = -heapq.heappop(leaves)[1]
        if token not in kept:  # gone with its twin
            continue
        for one in {token, twin.get(token, token)}:
            kept.discard(one)
            for part in parts.get(one, ()):
                if part != twin.get(one):
                    needed_by[part] -= 1
                    if not needed_by[part]:
                        offer(part)
    return kept
