"""FOCUS: a sparse mixture of shared tokens that are alike in an auxiliary space (arXiv 2305.14481)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tokswap.init.base import Pieces, Problem, option
from tokswap.init.methods._sparse import Array, Rows, Vectors, combine_pieces, nearest
from tokswap.tokenizer.vocabulary import byte_level_token

_FIRST = 32


@dataclass(frozen=True)
class Focus:
    """A new token is a mixture of the shared tokens, weighed by the sparsemax of their cosines in an auxiliary space.

    The space is the donor's, or, with `text`, that of fastText vectors which are trained on your text as the target
    tokenizer cuts it (the paper's way; give as much text as you have in the language you want). Sparsemax leaves only
    the nearest tokens a weight, as many as it takes. A new token that has no vector (its donor row is zero, or the text
    has it too seldom) is the mean of its pieces, and so are all where no shared token has one.
    """

    text: str = option("", "a text file to train vectors on; without one the donor's rows are the auxiliary space")
    width: int = option(300, "with text: elements of a vector", least=1, most=10000)
    epochs: int = option(5, "with text: how often training reads it", least=1)
    least: int = option(5, "with text: occurrences that a token needs for a vector", least=1)

    summary: ClassVar[str] = "sparsemax mixture of alike shared tokens, in the donor's space or of vectors from a text"
    source: ClassVar[str] = "arXiv 2305.14481"
    needs: ClassVar[str] = "the donor's embeddings, or a text"

    @property
    def needs_donor(self) -> bool:
        """Without `text` only."""
        return not self.text

    def check(self) -> None:
        """Raise InputError: unknown-file, missing-extra."""
        from tokswap.init.resources.vectors import check_file, check_training

        if self.text:
            check_file(self.text, "text", "FILE")
            check_training()

    def __call__(self, problem: Problem) -> np.ndarray:
        """Return float32[M, D]; leaves the number of tokens mixed in `problem.details`."""
        key = ("focus", self, 0 if self.text else id(problem.donor))
        if key not in problem.cache:
            problem.cache[key] = self._weigh(problem)
        mixture, weights = problem.cache[key]
        rows = combine_pieces(problem, weights, mixture)
        lost = np.flatnonzero(np.diff(mixture.start) == 0)
        if len(lost):
            rows[lost] = combine_pieces(problem, pieces=problem.pieces[lost])
            problem.notes.append(
                f"focus: {len(lost):,} of {len(rows):,} new tokens have no auxiliary vector; they are piece means"
            )
        problem.details["support"] = np.diff(mixture.start).astype(np.float32)
        return rows

    def _weigh(self, problem: Problem) -> tuple[Pieces, np.ndarray]:
        """Return the source tokens that each missing token is mixed from, and their weights float32[P]."""
        from tqdm import tqdm

        space, asking, shared = self._space(problem)
        source_ids = problem.alignment.source_of[shared]
        found: list[Any] = [(np.zeros(0, np.int64), np.zeros(0, np.float32))] * len(problem.missing)
        pending = asking if len(shared) else asking[:0]
        size = min(_FIRST, max(len(shared), 1))
        with tqdm(
            total=len(pending), desc="focus, neighbours", unit=" tokens", disable=None if problem.progress else True
        ) as bar:
            while len(pending):
                later = []
                for part in np.array_split(pending, -(-len(pending) * size * 64 // problem.memory)):
                    places, cosines = nearest(
                        space,
                        problem.missing[part],
                        space,
                        shared,
                        size,
                        memory=problem.memory,
                        device=problem.device,
                        exact_order=False,
                    )
                    weights = sparsemax(cosines)
                    # All others have smaller cosines: where the last of these counts nothing, they count nothing.
                    settled = (weights[:, -1] == 0) | (size == len(shared))
                    for n in np.flatnonzero(settled):
                        kept = weights[n] > 0
                        found[part[n]] = source_ids[places[n, kept]].astype(np.int64), weights[n, kept]
                    later.append(part[~settled])
                    bar.update(int(settled.sum()))
                pending = np.concatenate(later)
                size = min(8 * size, len(shared))
        mixture = Pieces.from_lists([ids.tolist() for ids, _ in found])
        return mixture, np.concatenate([np.zeros(0, np.float32), *(weights for _, weights in found)])

    def _space(self, problem: Problem) -> tuple[Rows, np.ndarray, np.ndarray]:
        """Vectors by target id, the places in `missing` of those that have one, and the shared target ids that do."""
        if not self.text:
            assert problem.donor is not None
            return problem.donor, np.flatnonzero(problem.donor.norms(problem.missing) > 0), problem.anchors
        from tokswap.init.resources.vectors import read_text, train_vectors

        assert problem.target_tokenizer is not None
        names = [byte_level_token(surface) for surface in problem.target.token_bytes]  # any bytes can be spelt so
        lines = read_text(self.text).splitlines(keepends=True)
        sentences = [problem.target_tokenizer.encode(line) for line in lines]
        ids, rows = train_vectors(
            sentences, names, width=self.width, epochs=self.epochs, least=self.least, seed=problem.seed
        )
        place = np.full(len(problem.target), -1, np.int64)
        place[ids] = np.arange(len(ids))
        vectors = Vectors(Array(rows), place)
        anchors = problem.anchors
        return vectors, np.flatnonzero(place[problem.missing] >= 0), anchors[place[anchors] >= 0]

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """The cosines, and the search for the largest."""
        return 3.0 * missing * anchors * (self.width if self.text else width)


def sparsemax(scores: np.ndarray) -> np.ndarray:
    """Return the point of the simplex nearest to each row of scores (arXiv 1602.02068); rows are sorted, descending."""
    total = np.cumsum(scores, axis=1, dtype=np.float64)
    count = np.arange(1, scores.shape[1] + 1)
    support = (1 + count * scores > total).sum(axis=1)
    threshold = (total[np.arange(len(scores)), support - 1] - 1) / support
    return np.asarray(np.maximum(scores - threshold[:, None], 0), np.float32)
