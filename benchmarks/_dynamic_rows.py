"""Merged tokens for dynamic.py, and their rows: by methods of transplants, and by a regression."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tokswap.checkpoint.embeddings import EmbeddingSpace
from tokswap.extend.rows import NewRows
from tokswap.init.base import MatrixUse, Pieces, Problem, Tokenizers
from tokswap.init.blend import read_method
from tokswap.tokenizer.alignment import Alignment, Reason
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind, Vocabulary

Token = tuple[int, ...]
"""A token as the model's own tokens that it joins."""
Text = list[Token]
Compute = Callable[[Mapping[bytes, Token]], np.ndarray]
"""Computes the rows of new tokens, float32 [n, D]."""


BATCH, LENGTH, BUDGETS = 16, 128, (0.1, 0.2, 0.3, 0.4)


def merged(batch: Sequence[Text], vocabulary: Vocabulary, budgets: Sequence[float]) -> Iterator[list[Text]]:
    """Join the most frequent pair of neighbours until each share of the tokens is saved, or no word has two tokens.

    The first token of a text stays as it is, so that a text whose first token is not predicted keeps its bytes.
    """
    begins = [spelt[:1] in (b" ", b"\n", b"\t") for spelt in vocabulary.token_bytes]
    texts = [list(text) for text in batch]
    size = sum(map(len, texts))
    for budget in budgets:
        while sum(map(len, texts)) > size * (1 - budget):
            pairs = Counter(pair for text in texts for pair in pairwise(text[1:]) if not begins[pair[1][0]])
            if not pairs:
                break
            best = min(pairs, key=lambda pair: (-pairs[pair], pair))
            texts = [_joined(text, best) for text in texts]
        yield texts


def _joined(text: Text, pair: tuple[Token, Token]) -> Text:
    out: Text = text[:1]
    for token in text[1:]:
        if len(out) > 1 and (out[-1], token) == pair:
            out[-1] += token
        else:
            out.append(token)
    return out


def left_out(batch: Sequence[Text], budgets: Sequence[float], oldest: bool) -> Iterator[list[Text]]:
    """Leave the same shares of the tokens out instead."""
    for budget in budgets:
        counts = [round(len(text) * budget) for text in batch]
        yield [text[n:] if oldest else text[: len(text) - n] for text, n in zip(batch, counts, strict=True)]


def chunks(ids: Sequence[int], most: int) -> list[Text]:
    """Return the first texts."""
    texts = [[(token,) for token in ids[n : n + LENGTH]] for n in range(0, len(ids) - LENGTH + 1, LENGTH)]
    return texts[:most]


def saved(state: Sequence[Text], whole: Sequence[Text]) -> float:
    """Return the share of the tokens that a batch has less."""
    return round(1 - sum(map(len, state)) / sum(map(len, whole)), 4)


class NewTokens:
    """The rows of a model's own tokens and, after them, those of new ones.

    Args:
        tokenizer: The model's tokenizer.
        rows: Its embeddings, float32 [V, D].
        compute: What computes new rows.
    """

    def __init__(self, tokenizer: Tokenizer, rows: np.ndarray, compute: Compute) -> None:
        self.rows, self.compute, self.all = rows, compute, rows
        self.spelt, self.own = tokenizer.vocabulary.token_bytes, tokenizer.vocabulary.produced
        self.ids: dict[bytes, int] = {}

    def add(self, batches: Sequence[Sequence[Text]]) -> None:
        """Compute the rows of all tokens in these batches that the model does not have."""
        new: dict[bytes, Token] = {}
        for token in (token for batch in batches for text in batch for token in text if len(token) > 1):
            key = b"".join(self.spelt[part] for part in token)
            if key not in self.own:
                new.setdefault(key, token)
        self.ids = {key: len(self.rows) + n for n, key in enumerate(new)}
        if new:
            self.all = np.concatenate([self.rows, self.compute(new)]).astype(np.float32)

    def id_of(self, token: Token) -> int:
        """Return the row of a token."""
        if len(token) == 1:
            return token[0]
        key = b"".join(self.spelt[part] for part in token)
        found = self.own.get(key)
        return self.ids[key] if found is None else found


@dataclass(frozen=True)
class OfTransplants:
    """A method of transplants, for a vocabulary with more tokens.

    Attributes:
        tokenizer: The model's tokenizer.
        rows: Its embeddings, float32 [V, D].
        method: The method.
        old_norms: Whether new rows get the norm of old ones, as input embeddings do in `tokswap extend`.
        scores: Whether the rows score tokens.
    """

    tokenizer: Tokenizer
    rows: np.ndarray
    method: str
    old_norms: bool = False
    scores: bool = False

    def __call__(self, new: Mapping[bytes, Token]) -> np.ndarray:
        """Compute the rows."""
        own, more = self.tokenizer.vocabulary, len(new)
        target = Vocabulary(
            text=[*own.text, *(key.decode("utf-8", "replace") for key in new)],
            token_bytes=[*own.token_bytes, *new],
            kind=np.concatenate([own.kind, np.full(more, Kind.NORMAL, own.kind.dtype)]),
        )
        source_of = np.concatenate([np.arange(len(own)), np.full(more, -1)]).astype(np.int32)
        problem = Problem(
            source=EmbeddingSpace.from_array(own, self.rows[: len(own)]),
            donor=None,
            target=target,
            alignment=Alignment(source_of, np.where(source_of < 0, Reason.MISSING, Reason.BYTES).astype(np.uint8)),
            missing=np.arange(len(own), len(target)),
            pieces=Pieces.from_lists([list(token) for token in new.values()]),
            matrix=MatrixUse("input", self.scores),
            tokenizers=Tokenizers(self.tokenizer, self.tokenizer, self.tokenizer.merge_pairs()),
        )
        method = read_method(self.method)
        return (NewRows(method) if self.old_norms else method)(problem).rows


class Regression:
    """Ridge regression from the rows of a merge pair to the row of its token, applied to the parts from left to right.

    Args:
        tokenizer: The model's tokenizer.
        rows: Its embeddings, float32 [V, D].
        most: Merge pairs to fit.
        ridge: Regularisation, as a share of the Gram matrix's mean diagonal.
    """

    def __init__(self, tokenizer: Tokenizer, rows: np.ndarray, *, most: int = 60_000, ridge: float = 3e-3) -> None:
        pairs = tokenizer.merge_pairs()
        known = np.flatnonzero((pairs[:, 0] >= 0) & (tokenizer.vocabulary.kind == Kind.NORMAL))[:most]
        mean = rows[known].mean(axis=0)
        features = np.concatenate([rows[pairs[known, side]] - mean for side in (0, 1)], axis=1)
        gram = features.T @ features
        gram += ridge * np.trace(gram) / len(gram) * np.eye(len(gram), dtype=gram.dtype)
        matrix = np.linalg.solve(gram, features.T @ (rows[known] - mean))
        self.rows, self.mean, self.matrix = rows, mean, matrix.astype(np.float32)

    def __call__(self, new: Mapping[bytes, Token]) -> np.ndarray:
        """Compute the rows."""
        out = []
        for token in new.values():
            row = self.rows[token[0]] - self.mean
            for part in token[1:]:
                row = np.concatenate([row, self.rows[part] - self.mean]) @ self.matrix
            out.append(row + self.mean)
        return np.stack(out)
