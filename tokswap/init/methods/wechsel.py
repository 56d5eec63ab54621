"""WECHSEL: neighbours by word vectors of two languages that were aligned beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokswap.errors import InputError
from tokswap.init.base import BaseModel, Initializer, Problem, Rows, Sizes, SupportsEncode
from tokswap.init.made_rows import MadeRows
from tokswap.init.methods._combine import combine, give_piece_means
from tokswap.init.methods._nearest import Array, Vectors, nearest
from tokswap.init.resources.protocol import Resources, WordVectors
from tokswap.options.declare import option


@dataclass(frozen=True)
class Wechsel(Initializer):
    """A new token is the mean of the source tokens that are nearest by word vectors that you bring.

    `vectors` has the words of the target tokenizer's language, and `source_vectors` those of the source model's
    language in the same, aligned space. One file may serve for both. A token's vector is the mean of the unit vectors
    of the words whose tokenization contains it, each weighted by one over its rank in the file. Words are tokenized
    inside a text and at its start. A token of several words has the mean of their unit vectors. The k nearest source
    tokens are weighted by exp(cosine / temperature). A new token that no word contains gets the mean of its pieces.
    """

    vectors: str = option("", "word vectors of the target's language: a .vec text file, or .npz with words and vectors")
    source_vectors: str = option("", "the same for the source's language, aligned with them; by default the same file")
    words: int = option(200_000, "words to read of each file; frequent words come first", least=1)
    k: int = option(10, "source tokens that a new token is mixed from", least=1)
    temperature: float = option(0.1, "the lower, the more the nearest weigh", least=0.001)

    summary: ClassVar[str] = "nearest source tokens by aligned word vectors that you bring"
    reference: ClassVar[str] = "arXiv 2112.06598"
    needs: ClassVar[str] = "word vectors"

    def check(self, base: BaseModel, resources: Resources) -> None:
        """Check that the files exist and hold vectors of one width.

        Raises:
            UsageError: missing-setting.
            InputError: unknown-file, bad-vectors.
        """
        resources.check_file(self.vectors, "vectors", "FILE.vec")
        if self.source_vectors:
            resources.check_file(self.source_vectors, "source_vectors", "FILE.vec")
        self._read(resources, most=1)

    def __call__(self, problem: Problem) -> Rows:
        """Mix the nearest source tokens; the diagnostic `nearest_cosine` is that of the first one.

        Raises:
            InputError: bad-vectors.
        """
        key, cache = ("wechsel", self), problem.context.cache
        if key not in cache:
            cache[key] = self._neighbours(problem)
        ids, weights, cosine = cache[key]
        found = weights.any(axis=1)

        def make(part: slice) -> np.ndarray:
            near = found[part]
            rows = np.empty((len(near), problem.source.width), np.float32)
            rows[near] = combine(problem.source, ids[part][near], weights[part][near])
            give_piece_means(problem, rows, ~near, part)
            return rows

        rows = MadeRows(len(found), problem.source.width, make)
        lost = np.flatnonzero(~found)
        notes: tuple[str, ...] = ()
        if len(lost):
            count = f"{len(lost):,} of {len(rows):,} new tokens"
            reason = "are part of no word that has a vector, or no source token is"
            notes = (f"wechsel: {count} {reason}; each gets the mean of its pieces",)
        return Rows(rows, {"nearest_cosine": cosine}, notes=notes)

    def _neighbours(self, problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Find the nearest source tokens.

        Returns:
            Source ids, int64 [M, k]; their weights, float32 [M, k], zeros for a token without neighbours; and the
            cosine of the nearest, float32 [M].
        """
        assert problem.tokenizers is not None
        theirs, ours = self._read(problem.context.resources, most=self.words)
        new = _token_vectors(theirs, problem.tokenizers.target, problem.target.token_bytes)
        known = _token_vectors(ours, problem.tokenizers.source, problem.source.vocabulary.token_bytes)
        asking = np.flatnonzero(new.known()[problem.missing])
        keys = np.flatnonzero(known.known() & problem.source.vocabulary.pieces)
        memory, device = problem.context.memory, problem.context.device
        places, cosines = nearest(new, problem.missing[asking], known, keys, self.k, memory=memory, device=device)
        ids = np.zeros((len(problem.missing), places.shape[1]), np.int64)
        weights = np.zeros(ids.shape, np.float32)
        cosine = np.zeros(len(ids), np.float32)
        if places.shape[1]:
            ids[asking], cosine[asking] = keys[places], cosines[:, 0]
            power = np.exp((cosines - cosines[:, :1]) / self.temperature)
            weights[asking] = power / power.sum(axis=1, keepdims=True)
        return ids, weights, cosine

    def _read(self, resources: Resources | None, *, most: int) -> tuple[WordVectors, WordVectors]:
        """Read the word vectors of the target's language and of the source's."""
        assert resources is not None
        theirs = ours = resources.read_word_vectors(self.vectors, most)
        if self.source_vectors and self.source_vectors != self.vectors:
            ours = resources.read_word_vectors(self.source_vectors, most)
        if ours.rows.shape[1] != theirs.rows.shape[1]:
            raise InputError(
                "bad-vectors",
                f"the vectors have {theirs.rows.shape[1]} elements in one file and {ours.rows.shape[1]} in the other",
                "both files must hold vectors of one space",
                vectors=self.vectors,
                source_vectors=self.source_vectors,
            )
        return theirs, ours

    def held(self, sizes: Sizes) -> int:
        """Count the search, and vectors of 300 elements."""
        return 2 * sizes.work + 3600 * self.words

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """Count the cosines of vectors with 300 elements."""
        return 600.0 * missing * anchors


def _token_vectors(vectors: WordVectors, tokenizer: SupportsEncode, token_bytes: Sequence[bytes]) -> Vectors:
    """Return the vectors of a vocabulary's tokens by id."""
    from scipy.sparse import csr_matrix

    norms = np.linalg.norm(vectors.rows, axis=1, keepdims=True)
    rows = vectors.rows / np.maximum(norms, np.finfo(np.float32).tiny)
    forms = [form for word in vectors.words for form in (b" " + word.encode(), word.encode())]
    inside = [(token, n // 2) for n, ids in enumerate(tokenizer.tokenize_bytes(forms)) for token in set(ids)]
    across = _words_of(token_bytes, {word.encode(): n for n, word in enumerate(vectors.words)})
    token, word = np.array([*inside, *across], np.int64).reshape(-1, 2).T
    weight = np.where(np.arange(len(word)) < len(inside), 1 / (1.0 + word), 1.0)
    distinct, place = np.unique(token, return_inverse=True)
    share = csr_matrix((weight, (place, word)), (len(distinct), len(vectors.words)))
    mean = (share @ rows) / np.asarray(share.sum(axis=1)).reshape(-1, 1)
    place_of = np.full(len(token_bytes), -1, np.int64)
    place_of[distinct] = np.arange(len(distinct))
    return Vectors(Array(np.asarray(mean, np.float32)), place_of)


def _words_of(token_bytes: Sequence[bytes], place: Mapping[bytes, int]) -> list[tuple[int, int]]:
    """Return each token of several words with the place of each of its words."""
    return [
        (token, place[word])
        for token, whole in enumerate(token_bytes)
        if b" " in whole.strip()
        for word in whole.split()
        if word in place
    ]
