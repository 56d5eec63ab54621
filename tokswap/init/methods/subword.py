"""Mixtures of the source tokens that spell a token (FVT, arXiv 2402.09977; ReTok, arXiv 2410.04335)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokswap.init.base import Problem, option
from tokswap.tokenizer.vocabulary import Kind

WEIGHTS = ("mean", "first", "last", "exponential", "length", "frequency")


@dataclass(frozen=True)
class Subword:
    """A new token is a weighted mean of the source rows of its pieces; a token without pieces is the mean source row.

    `weights` says what a piece counts: all the same (mean), the first or last piece alone, exponential (the j-th piece
    counts decay to the power of j: below 1 the first piece counts most, above 1 the last), length (its bytes), or
    frequency (the logarithm of its rank among the source's tokens by id, which follows how frequent they were in
    training: a rarer piece says more about the word).
    """

    weights: str = option("mean", "what each piece counts", choices=WEIGHTS)
    decay: float = option(
        0.5, "with weights=exponential: what a piece counts against the one before", least=1e-3, most=1e3
    )

    summary: ClassVar[str] = "mean of the source tokens that spell the new one"
    source: ClassVar[str] = "arXiv 2402.09977 (FVT), arXiv 2410.04335 (ReTok)"
    needs_donor: ClassVar[bool] = False

    def __call__(self, problem: Problem) -> np.ndarray:
        """Return float32[M, D]."""
        from tokswap.init.methods._sparse import combine_pieces

        return combine_pieces(problem, self._weights(problem))

    def _weights(self, problem: Problem) -> np.ndarray | None:
        """What each piece counts, float[len(pieces.ids)], None where all count the same."""
        pieces, vocabulary = problem.pieces, problem.source.vocabulary
        counts = np.diff(pieces.start)
        place = np.arange(len(pieces.ids)) - np.repeat(pieces.start[:-1], counts)
        from_end = np.repeat(counts, counts) - 1 - place
        if self.weights == "mean":
            return None
        if self.weights == "first":
            found: np.ndarray = place == 0
        elif self.weights == "last":
            found = from_end == 0
        elif self.weights == "exponential":
            # From the heaviest piece down: a high power of a decay above 1 would overflow.
            found = np.power(min(self.decay, 1 / self.decay), place if self.decay <= 1 else from_end)
        elif self.weights == "length":
            found = np.array([len(vocabulary.token_bytes[token]) for token in pieces.ids.tolist()])
        else:
            rank = np.cumsum(vocabulary.kind == Kind.NORMAL)
            found = np.log(1.0 + rank[pieces.ids])
        return found

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """About four pieces a token."""
        return 4.0 * missing * width
