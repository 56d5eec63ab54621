"""FOCUS: a sparse mixture of shared tokens that are alike in an auxiliary space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tokswap.init.base import BaseModel, DonorUse, Initializer, Pieces, Problem, Rows, Sizes
from tokswap.init.made_rows import MadeRows
from tokswap.init.methods._combine import combine_pieces, give_piece_means
from tokswap.init.methods._nearest import Array, HasRows, Vectors, nearest
from tokswap.init.resources.protocol import Resources
from tokswap.options.declare import option
from tokswap.tokenizer.vocabulary import byte_level_token

_FIRST = 32
"""Neighbours to find at first; tokens that need more get eight times as many, again and again."""


@dataclass(frozen=True)
class Focus(Initializer):
    """A new token is a mixture of shared tokens, weighted by the sparsemax of their cosines in an auxiliary space.

    The auxiliary space is the donor's. With `text` it is that of fastText vectors, trained on your text as the target
    tokenizer tokenizes it. That is the paper's way: give as much text as you have in the language you want. Sparsemax
    gives a weight only to the nearest tokens, and decides how many. A new token without a vector gets the mean of its
    pieces: its donor row is zero, or it is too rare in the text. So do all where no shared token has a vector.
    """

    text: str = option("", "text file to train vectors on; without one, the donor's rows are the auxiliary space")
    width: int = option(300, "with text: elements of a vector", least=1, most=10000)
    epochs: int = option(5, "with text: how often training reads the text", least=1)
    least: int = option(5, "with text: occurrences that a token needs for a vector", least=1)

    summary: ClassVar[str] = "sparsemax mixture of alike shared tokens, in the donor's space or of vectors from a text"
    reference: ClassVar[str] = "arXiv 2305.14481"
    needs: ClassVar[str] = "the donor's embeddings, or a text"

    def donor_use(self) -> DonorUse:
        """Require the donor without `text`."""
        return "none" if self.text else "required"

    def check(self, base: BaseModel, resources: Resources) -> None:
        """Check that the text exists and that vectors can be trained.

        Raises:
            InputError: unknown-file, missing-extra.
        """
        if self.text:
            resources.check_file(self.text, "text", "FILE")
            resources.check_training()

    def __call__(self, problem: Problem) -> Rows:
        """Mix the shared tokens; the diagnostic `support` counts them."""
        donor = "" if self.text or problem.donor is None else problem.donor.name
        key, cache = ("focus", self, donor), problem.context.cache
        if key not in cache:
            cache[key] = self._mixtures(problem)
        mixture, weights = cache[key]
        support = np.diff(mixture.start).astype(np.float32)

        def make(part: slice) -> np.ndarray:
            rows = combine_pieces(problem, weights, mixture, part=part)
            give_piece_means(problem, rows, support[part] == 0, part)
            return rows

        rows = MadeRows(len(support), problem.source.width, make)
        lost = np.flatnonzero(support == 0)
        notes: tuple[str, ...] = ()
        if len(lost):
            count = f"{len(lost):,} of {len(rows):,} new tokens"
            notes = (f"focus: {count} have no auxiliary vector; each gets the mean of its pieces",)
        return Rows(rows, {"support": support}, notes=notes)

    def _mixtures(self, problem: Problem) -> tuple[Pieces, np.ndarray]:
        """Return the source tokens that each missing token is mixed from, and their weights, float32 [P]."""
        space, pending, shared = self._space(problem)
        if not len(shared):
            pending = pending[:0]
        source_ids = problem.alignment.source_of[shared]
        found: list[Any] = [(np.zeros(0, np.int64), np.zeros(0, np.float32))] * len(problem.missing)
        memory, device = problem.context.memory, problem.context.device
        size = min(_FIRST, max(len(shared), 1))
        with problem.context.bar(len(pending), "focus, neighbours") as bar:
            while len(pending):
                later = []
                for part in np.array_split(pending, -(-len(pending) * size * 64 // memory)):
                    ids = problem.missing[part]
                    places, cosines = nearest(
                        space, ids, space, shared, size, memory=memory, device=device, exact_order=False
                    )
                    weights = sparsemax(cosines)
                    # All other tokens have smaller cosines: where the last one here weighs nothing, so do they.
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

    def _space(self, problem: Problem) -> tuple[HasRows, np.ndarray, np.ndarray]:
        """Return the auxiliary space.

        Returns:
            Vectors by target id, the places in `problem.missing` of tokens that have one, and the shared target ids
            that have one.
        """
        if not self.text:
            assert problem.donor is not None
            return problem.donor, np.flatnonzero(problem.donor.norms(problem.missing) > 0), problem.anchors
        ids, rows = self._train(problem)
        place = np.full(len(problem.target), -1, np.int64)
        place[ids] = np.arange(len(ids))
        anchors = problem.anchors
        vectors = Vectors(Array(rows), place)
        return vectors, np.flatnonzero(place[problem.missing] >= 0), anchors[place[anchors] >= 0]

    def _train(self, problem: Problem) -> tuple[np.ndarray, np.ndarray]:
        """Return target ids and their vectors, trained on the text."""
        resources = problem.context.resources
        assert resources is not None
        assert problem.tokenizers is not None
        names = [byte_level_token(token) for token in problem.target.token_bytes]  # spells any bytes
        lines = resources.read_text(self.text).splitlines(keepends=True)
        return resources.train_token_vectors(
            [problem.tokenizers.target.encode(line) for line in lines],
            names,
            width=self.width,
            epochs=self.epochs,
            least=self.least,
            seed=problem.context.seed,
        )

    def held(self, sizes: Sizes) -> int:
        """Count the search and the mixtures."""
        return 2 * sizes.work + 2 * (sizes.anchors + sizes.missing) * sizes.width + 500 * sizes.missing

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """Count the cosines, and the search for the largest."""
        return 3.0 * missing * anchors * (self.width if self.text else width)


def sparsemax(scores: np.ndarray) -> np.ndarray:
    """Return the point of the simplex that is nearest to each row of scores.

    Args:
        scores: float [n, k], each row in descending order.

    Returns:
        float32 [n, k].

    Reference:
        arXiv 1602.02068
    """
    total = np.cumsum(scores, axis=1, dtype=np.float64)
    count = np.arange(1, scores.shape[1] + 1)
    support = (1 + count * scores > total).sum(axis=1)
    threshold = (total[np.arange(len(scores)), support - 1] - 1) / support
    return np.asarray(np.maximum(scores - threshold[:, None], 0), np.float32)
