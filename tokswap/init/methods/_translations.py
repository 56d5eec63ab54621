"""Which tokens of a text translate which tokens of another: IBM model 1 in both directions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_DIAGONAL = 4.0
"""How fast the prior of a link falls with its distance from the diagonal of its pair of lines, as in fast_align."""
_NOTHING = 0.08
"""Prior probability that a token translates nothing, as in fast_align."""
_BLOCK = 1 << 20
"""Links that are worked on at once."""

Pair = tuple[list[int], list[int]]
"""Token ids of a line and of its translation."""


@dataclass(frozen=True)
class Links:
    """How often each pair of tokens translates each other.

    Attributes:
        target: Id of the target's token, int64 [n].
        source: Id of the source's token, int64 [n].
        count: Expected number of links that both directions agree on, float64 [n].
    """

    target: np.ndarray
    source: np.ndarray
    count: np.ndarray


def translations(target: Sequence[Sequence[int]], source: Sequence[Sequence[int]], rounds: int) -> Links:
    """Find the translations of tokens in lines that translate each other.

    A token of a line may translate each token of the other line, or nothing. The prior of a link falls with its
    distance from the diagonal. Expectation maximisation fits the probability that a token translates another, in both
    directions. A link counts with the product of its probabilities in both.

    Args:
        target: Token ids of the lines of one text.
        source: Token ids of the lines of the other.
        rounds: Rounds of expectation maximisation.

    Returns:
        Every pair of tokens that stand in lines of the same number.

    Reference:
        Brown et al. 1993 (IBM model 1); Dyer et al. 2013 (fast_align); Liang et al. 2006 (agreement)
    """
    pairs = [(list(one), list(other)) for one, other in zip(target, source, strict=True) if len(one) and len(other)]
    width = 1 + max((max(other) for _, other in pairs), default=0)
    keys = [np.unique(np.concatenate([_keys(*pair, width) for pair in part])) for part in _parts(pairs)]
    distinct = np.unique(np.concatenate([np.zeros(0, np.int64), *keys]))
    links = Links(distinct // width, distinct % width, np.zeros(len(distinct)))
    ahead, back = _shares(links.count + 1, links.source), _shares(links.count + 1, links.target)
    usual = _frequency(one for one, _ in pairs)[links.target], _frequency(other for _, other in pairs)[links.source]
    blocks = [_Block.of(part, distinct, width) for part in _parts(pairs)]
    for _ in range(rounds + 1):
        counts = np.zeros((3, len(distinct)))
        for block in blocks:
            forward = block.posterior(ahead, usual[0], block.row)
            backward = block.posterior(back, usual[1], block.column)
            for total, one in zip(counts, (forward, backward, forward * backward), strict=True):
                total += np.bincount(block.cell, one, len(distinct))
        ahead, back = _shares(counts[0], links.source), _shares(counts[1], links.target)
    return Links(links.target, links.source, counts[2])


def _parts(pairs: list[Pair]) -> Iterator[list[Pair]]:
    """Yield runs of pairs that have about a block of links."""
    part: list[Pair] = []
    links = 0
    for pair in pairs:
        part.append(pair)
        links += len(pair[0]) * len(pair[1])
        if links >= _BLOCK:
            yield part
            part, links = [], 0
    if part:
        yield part


def _keys(one: list[int], other: list[int], width: int) -> np.ndarray:
    """Return a number for the two tokens of each link of a pair of lines, int64 [links]."""
    return (np.array(one, np.int64)[:, None] * width + np.array(other, np.int64)).reshape(-1)


def _shares(counts: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Divide each count by the sum of its group."""
    total = np.bincount(group, counts)
    return np.asarray(counts / np.maximum(total[group], np.finfo(np.float64).tiny))


def _frequency(lines: Iterator[list[int]]) -> np.ndarray:
    """Return each token's share of a text, by id."""
    count = np.bincount([token for line in lines for token in line] or [0])
    return np.asarray(count / count.sum())


@dataclass(frozen=True)
class _Block:
    """The links of some pairs of lines.

    Attributes:
        cell: Place of the two tokens among all pairs of tokens, int32 [n].
        row: Which token of the first lines it links, int32 [n].
        column: Which token of the second lines, int32 [n].
        prior: Its nearness to the diagonal, float32 [n].
    """

    cell: np.ndarray
    row: np.ndarray
    column: np.ndarray
    prior: np.ndarray

    @classmethod
    def of(cls, pairs: list[Pair], distinct: np.ndarray, width: int) -> _Block:
        """Collect the links of pairs of lines."""
        rows, columns, priors, first = [], [], [], [0, 0]
        for one, other in pairs:
            row, column = (place.reshape(-1) for place in np.indices((len(one), len(other))))
            rows.append(row + first[0])
            columns.append(column + first[1])
            priors.append(np.exp(-_DIAGONAL * np.abs((row + 0.5) / len(one) - (column + 0.5) / len(other))))
            first = [first[0] + len(one), first[1] + len(other)]
        cells = np.searchsorted(distinct, np.concatenate([_keys(*pair, width) for pair in pairs]))
        return cls(
            cells.astype(np.int32),
            np.concatenate(rows).astype(np.int32),
            np.concatenate(columns).astype(np.int32),
            np.concatenate(priors).astype(np.float32),
        )

    def posterior(self, table: np.ndarray, usual: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Return the probability of each link among those of its place, and of none there.

        Args:
            table: Probability of each pair of tokens, float64 [pairs].
            usual: How likely a token is where it translates nothing, float64 [pairs].
            place: Place of each link, int32 [n].

        Returns:
            float64 [n].
        """
        prior = self.prior * (1 - _NOTHING) / np.bincount(place, self.prior)[place]
        score = table[self.cell] * prior
        nothing = _NOTHING * usual[self.cell]
        return np.asarray(score / (np.bincount(place, score)[place] + nothing))
