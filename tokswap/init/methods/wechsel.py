"""WECHSEL: neighbours by word vectors of two languages that were aligned beforehand (arXiv 2112.06598)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokswap.init.base import Problem, SupportsEncode, option
from tokswap.init.methods._sparse import Array, Vectors, combine, combine_pieces, nearest
from tokswap.tokenizer.vocabulary import Kind


@dataclass(frozen=True)
class Wechsel:
    """A new token is the mean of the source tokens nearest to it by word vectors that you bring.

    `vectors` has the words of the target tokenizer's language, `source_vectors` those of the source model's language in
    the same, aligned space; one file may serve for both. A token's vector is the mean of the vectors (of length one) of
    the words that its tokenizer cuts it from, inside a text and without a space before them, each counting one by its
    rank in the file. The k nearest source tokens count exp(cosine / temperature). A new token that no word contains is
    the mean of its pieces.
    """

    vectors: str = option("", "word vectors of the target's language: a .vec text file, or .npz with words and vectors")
    source_vectors: str = option("", "the same for the source's language, aligned with them; by default the same file")
    words: int = option(200_000, "how many words to read of each file, which begin with the frequent ones", least=1)
    k: int = option(10, "source tokens that a new one is made from", least=1)
    temperature: float = option(0.1, "the lower, the more the nearest counts", least=0.001)

    summary: ClassVar[str] = "nearest source tokens by aligned word vectors that you bring"
    source: ClassVar[str] = "arXiv 2112.06598"
    needs: ClassVar[str] = "word vectors"
    needs_donor: ClassVar[bool] = False

    def check(self) -> None:
        """Raise UsageError missing-setting, InputError unknown-file."""
        from tokswap.init.resources.vectors import check_file

        check_file(self.vectors, "vectors", "FILE.vec")
        check_file(self.source_vectors or self.vectors, "source_vectors", "FILE.vec")

    def __call__(self, problem: Problem) -> np.ndarray:
        """Return float32[M, D]; leaves the cosine of the nearest source token in `problem.details`."""
        key = ("wechsel", self)
        if key not in problem.cache:
            problem.cache[key] = self._weigh(problem)
        ids, weights, cosine = problem.cache[key]
        found = weights.any(axis=1)
        rows = np.empty((len(found), problem.source.width), np.float32)
        rows[found] = combine(problem.source, ids[found], weights[found])
        lost = np.flatnonzero(~found)
        if len(lost):
            rows[lost] = combine_pieces(problem, pieces=problem.pieces[lost])
            problem.notes.append(
                f"wechsel: {len(lost):,} of {len(rows):,} new tokens are part of no word with a vector, "
                "or no source token is; they are piece means"
            )
        problem.details["nearest_cosine"] = cosine
        return rows

    def _weigh(self, problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return source ids int64[M, k], their weights [M, k] (zeros for a token without), the nearest's cosine [M]."""
        from tokswap.errors import InputError
        from tokswap.init.resources.vectors import read_vectors

        self.check()
        theirs = read_vectors(self.vectors, self.words)
        ours = theirs
        if self.source_vectors and self.source_vectors != self.vectors:
            ours = read_vectors(self.source_vectors, self.words)
        if ours.rows.shape[1] != theirs.rows.shape[1]:
            raise InputError(
                "bad-vectors",
                f"vectors of {theirs.rows.shape[1]} and of {ours.rows.shape[1]} numbers cannot be aligned",
                "both files must hold vectors of one space",
                vectors=self.vectors,
                source_vectors=self.source_vectors,
            )
        new = _token_vectors(theirs.words, theirs.rows, problem.target_tokenizer, len(problem.target))
        known = _token_vectors(ours.words, ours.rows, problem.source_tokenizer, len(problem.source.vocabulary))
        asking = np.flatnonzero(new.known()[problem.missing])
        keys = np.flatnonzero(known.known() & (problem.source.vocabulary.kind == Kind.NORMAL))
        places, cosines = nearest(
            new, problem.missing[asking], known, keys, self.k, memory=problem.memory, device=problem.device
        )
        ids = np.zeros((len(problem.missing), places.shape[1]), np.int64)
        weights = np.zeros(ids.shape, np.float32)
        cosine = np.zeros(len(ids), np.float32)
        if places.shape[1]:
            ids[asking], cosine[asking] = keys[places], cosines[:, 0]
            power = np.exp((cosines - cosines[:, :1]) / self.temperature)
            weights[asking] = power / power.sum(axis=1, keepdims=True)
        return ids, weights, cosine

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """The cosines, for vectors of 300 numbers."""
        return 600.0 * missing * anchors


def _token_vectors(words: Sequence[str], rows: np.ndarray, tokenizer: SupportsEncode | None, count: int) -> Vectors:
    """Return the vectors of a vocabulary's tokens by id."""
    from scipy.sparse import csr_matrix

    assert tokenizer is not None
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    forms = [form for word in words for form in (b" " + word.encode(), word.encode())]
    pairs = [(token, n // 2) for n, ids in enumerate(tokenizer.tokenize_bytes(forms)) for token in set(ids)]
    token, word = np.array(pairs, np.int64).reshape(-1, 2).T
    distinct, place = np.unique(token, return_inverse=True)
    share = csr_matrix((1 / (1.0 + word), (place, word)), (len(distinct), len(words)))
    mean = (share @ rows) / np.asarray(share.sum(axis=1)).reshape(-1, 1)
    place_of = np.full(count, -1, np.int64)
    place_of[distinct] = np.arange(len(distinct))
    return Vectors(Array(np.asarray(mean, np.float32)), place_of)
