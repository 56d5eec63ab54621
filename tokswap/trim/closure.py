"""Which tokens a kept token needs, and which tokens to give up first. Pure.

`parts` is a graph: id -> the ids that the tokenizer needs before it can produce that id (see `bpe`, `unigram` and
`wordpiece`). A set of ids is *closed* if it holds the parts of each of its ids.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import numpy as np


def closed(parts: Mapping[int, tuple[int, ...]], ids: Iterable[int]) -> set[int]:
    """Return the smallest closed set that holds some ids.

    Args:
        parts: Id -> the ids that it needs.
        ids: The ids that the set must hold.
    """
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
    """Shrink a closed set to a closed subset of a given size.

    The id with the lowest score goes first, among those that no other id needs, until enough have gone. A token that is
    kept only because others need it has no score of its own, so it goes with the last of them. Two ids that need each
    other go together, by the higher of their scores.

    Args:
        parts: Id -> the ids that it needs.
        ids: A closed set.
        forced: The ids that must stay; a closed set.
        score: What each id is worth (float [V]).
        size: Number of ids to keep.

    Returns:
        A closed set of at most `size` ids, or the forced ids if there are more of them.
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
