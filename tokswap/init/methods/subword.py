"""Mixtures of the source tokens that spell a new token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokswap.init.base import Initializer, Problem, Rows
from tokswap.options.declare import option
from tokswap.tokenizer.vocabulary import Kind

WEIGHTS = ("mean", "first", "last", "exponential", "length", "frequency")


@dataclass(frozen=True)
class Subword(Initializer):
    """A new token is a weighted mean of the source rows of its pieces.

    `weights` sets the weight of a piece. mean: all equal, as in FVT and ReTok. first, last: this piece alone.
    exponential: decay to the power of the piece's position; below 1 the first piece weighs most, above 1 the last.
    length: its bytes. frequency: the logarithm of its rank among the source ids, because ids follow frequency in
    training and a rarer piece says more about the word. A token without pieces gets the mean source row.
    """

    weights: str = option("mean", "weight of each piece", choices=WEIGHTS)
    decay: float = option(
        0.5, "with weights=exponential: a piece's weight over the previous one's", least=1e-3, most=1e3
    )

    summary: ClassVar[str] = "mean of the source tokens that spell the new one"
    reference: ClassVar[str] = "arXiv 2402.09977 (FVT), arXiv 2410.04335 (ReTok)"

    def __call__(self, problem: Problem) -> Rows:
        """Average the pieces' rows."""
        from tokswap.init.methods._combine import mixed_pieces

        return Rows(mixed_pieces(problem, self._weights(problem)))

    def _weights(self, problem: Problem) -> np.ndarray | None:
        """Return the weight of each piece, float [P]; None where all are equal."""
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
        """Count about four pieces per token."""
        return 4.0 * missing * width
