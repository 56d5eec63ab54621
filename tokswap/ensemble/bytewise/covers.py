"""The tokens that may come next at each boundary of a text, and the next-byte probabilities that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tokswap.ensemble.bytewise.canonical import Canonical
from tokswap.ensemble.bytewise.order import TokenOrder
from tokswap.ensemble.bytewise.paths import End

END = 256
"""The place of the end of text in a distribution over 257 outcomes."""
_FIRST_PARTS = 64
"""Tokens with less than this part of the tolerance are not sorted at first."""


@dataclass
class Cover:
    """The tokens that may begin at one boundary of the text and go past what has been read.

    c is the canonical encoding of the bytes before the boundary, and t a token.

    Attributes:
        start: The boundary, in bytes.
        path: The end of c.
        log: log P(c).
        rest: The incomplete character that the bytes before the boundary end with.
        probabilities: P(t | c) by place in the token order, 0 where c, t is known not to be canonical (float32 [T]).
        asked: Whether the tokenizer has been asked about c, t (bool [T]).
        end: P(eos | c).
        low: First place of the tokens that spell what has been read since the boundary.
        high: The place after their last one.
    """

    start: int
    path: End
    log: float
    rest: bytes
    probabilities: np.ndarray
    asked: np.ndarray
    end: float
    low: int
    high: int


class NextTokens(NamedTuple):
    """The tokens that spell what has been read since some boundary, and go past it.

    Attributes:
        nodes: Node of the cover that each belongs to.
        ids: Their ids.
        mass: Their probabilities, which add up to anything, float64 [n].
        end: The probability that the text ends here.
    """

    nodes: list[int]
    ids: list[int]
    mass: np.ndarray
    end: float


class Covers:
    """The covers of what a reader has read.

    Args:
        order: The text tokens.
        canonical: Says which sequences are canonical.
        ends: Ids of the tokens that end a text.
        tolerance: Share of the probability, that of the least likely tokens, that counts without asking the tokenizer.
    """

    def __init__(self, order: TokenOrder, canonical: Canonical, ends: Sequence[int], tolerance: float) -> None:
        self._order = order
        self._canonical = canonical
        self._ends = list(ends)
        self._tolerance = tolerance
        self._covers: list[Cover] = []

    @property
    def nodes(self) -> set[int]:
        """The nodes that a cover begins at."""
        return {cover.path.node for cover in self._covers}

    def clear(self) -> None:
        """Drop all covers."""
        self._covers = []

    def add(self, start: int, path: End, log: float, rest: bytes, after: np.ndarray) -> None:
        """Add the cover of a boundary. The arguments are those of `Cover`; `after` is log P(t | c) (float32 [V])."""
        size = len(self._order)
        probabilities = np.exp(after)
        cover = Cover(
            start=start,
            path=path,
            log=log,
            rest=rest,
            probabilities=probabilities[self._order.ids],
            asked=np.zeros(size, bool),
            end=float(probabilities[self._ends].sum()),
            low=0,
            high=size,
        )
        self._covers.append(cover)

    def narrow(self, data: bytes) -> None:
        """Keep the tokens that spell what has been read and go past it, and the covers that still have some.

        Args:
            data: Everything that has been read.
        """
        for cover in self._covers:
            cover.low, cover.high = self._order.longer_than(data[cover.start :])
        self._covers = [cover for cover in self._covers if cover.low < cover.high]

    def tokens(self, size: int) -> NextTokens:
        """Return all tokens that may come next. size: bytes that have been read."""
        top = max((cover.log for cover in self._covers), default=0.0)
        scales = [float(np.exp(cover.log - top)) for cover in self._covers]
        self._rule_out(scales)
        nodes: list[int] = []
        ids: list[int] = []
        mass = [np.zeros(0)]
        end = 0.0
        for cover, scale in zip(self._covers, scales, strict=True):
            places = cover.low + np.flatnonzero(cover.probabilities[cover.low : cover.high])
            nodes += [cover.path.node] * len(places)
            ids += self._order.ids[places].tolist()
            mass.append(scale * cover.probabilities[places].astype(np.float64))
            end += scale * cover.end if cover.start == size else 0.0
        return NextTokens(nodes, ids, np.concatenate(mass), end)

    def foresee(self, data: bytes) -> np.ndarray:
        """Tell how the tokens that are known go on.

        Args:
            data: Everything that has been read, and perhaps a few bytes more.

        Returns:
            The weight of each byte after `data` and, last, of the tokens that end there, after which nothing is known
            (float64 [257]). They add up to anything.
        """
        top = max((cover.log for cover in self._covers), default=0.0)
        weights = np.zeros(257)
        for cover in self._covers:
            begun = data[cover.start :]
            first, (low, high) = self._order.first_from(begun), self._order.longer_than(begun)
            scale, values = float(np.exp(cover.log - top)), self._order.bytes_at(low, high, len(begun))
            weights[:END] += scale * np.bincount(values, cover.probabilities[low:high], 256)
            weights[END] += scale * float(cover.probabilities[first:low].sum())
        return weights

    def renumber(self, new_of: dict[int, int]) -> None:
        """Follow a tree that has dropped nodes.

        Args:
            new_of: Old number -> new number.
        """
        for cover in self._covers:
            cover.path = End(new_of[cover.path.node], cover.path.last)

    def weights(self, size: int) -> np.ndarray:
        """Add up the covers.

        Args:
            size: Bytes that have been read.

        Returns:
            The weight of each next byte and, last, of the end; they add up to anything (float64 [257]).
        """
        top = max((cover.log for cover in self._covers), default=0.0)
        scales = [float(np.exp(cover.log - top)) for cover in self._covers]
        self._rule_out(scales)
        weights = np.zeros(257)
        for cover, scale in zip(self._covers, scales, strict=True):
            depth = size - cover.start
            values = self._order.bytes_at(cover.low, cover.high, depth)
            weights[:END] += scale * np.bincount(values, cover.probabilities[cover.low : cover.high], 256)
            weights[END] += 0.0 if depth else scale * cover.end
        return weights

    def _rule_out(self, scales: Sequence[float]) -> None:
        """Set the probability of tokens that are not canonical to 0, the likeliest first, down to the tolerance."""
        if not self._covers:
            return
        owner, place = self._likeliest(scales)
        for n in np.unique(owner).tolist():
            cover = self._covers[n]
            places = place[owner == n]
            places = places[~cover.asked[places]]
            fine = self._canonical.may_follow(cover.path.last, cover.rest, self._order.ids[places])
            cover.probabilities[places[~fine]] = 0.0
            cover.asked[places] = True

    def _likeliest(self, scales: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Find the likeliest tokens of all covers: so many that the others have no more than the tolerance.

        Args:
            scales: Weight of each cover.

        Returns:
            The cover of each token (int64 [n]), and its place in the token order (int64 [n]).
        """
        values = [cover.probabilities[cover.low : cover.high] for cover in self._covers]
        pairs = list(zip(values, scales, strict=True))
        total = sum(scale * float(own.sum(dtype=np.float64)) for own, scale in pairs)
        limit = self._tolerance * total
        least = limit / _FIRST_PARTS
        while True:  # only what lies above a bound is sorted; the bound goes down until the rest is within the limit
            found = [np.flatnonzero(own > min(least / max(scale, 1e-300), 2.0)) for own, scale in pairs]
            mass = np.concatenate(
                [scale * own[at].astype(np.float64) for (own, scale), at in zip(pairs, found, strict=True)]
            )
            beyond = total - float(mass.sum())
            if beyond <= limit or least < 1e-300:
                break
            least /= 8
        owner = np.repeat(np.arange(len(found)), [len(at) for at in found])
        place = np.concatenate([cover.low + at for cover, at in zip(self._covers, found, strict=True)])
        best = np.argsort(-mass, kind="stable")
        if limit > 0:
            after_each = beyond + np.cumsum(mass[best][::-1])[::-1] - mass[best]
            best = best[: 1 + int(np.searchsorted(-after_each, -limit))]
        return owner[best], place[best]
