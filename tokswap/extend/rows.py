"""The rows of new tokens beside those of old ones: which pieces they are made of, and how large they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from tokswap.errors import UsageError, did_you_mean
from tokswap.init.base import DonorUse, Initializer, Pieces, Problem, Rows, Sizes
from tokswap.init.made_rows import MadeRows
from tokswap.tokenizer.vocabulary import Vocabulary


@dataclass(frozen=True)
class NewRows(Initializer):
    """The rows of another method, with the norms of old rows where the model reads them.

    A mean of several rows has a smaller norm than each of them. Input embeddings get the median norm of the rows that
    the model has learnt. Rows of lm_head keep their norm: larger ones would be predicted too often. Where one matrix is
    both, the rows keep their norm too.

    Attributes:
        method: The method.
        named: New id -> the old ids that the user wants its row to be made of.
        scaled: Whether the norms of input embeddings are changed at all.
    """

    method: Initializer
    named: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    scaled: bool = True

    summary: ClassVar[str] = "another method, at the norms of old rows"
    reference: ClassVar[str] = "this project"

    def __call__(self, problem: Problem) -> Rows:
        """Compute the rows, and scale those of input embeddings."""
        found = self.method(self._with_named(problem))
        if not self.scaled or problem.matrix.scores or problem.matrix.role == "output":
            return found
        norms = problem.source.norms(problem.trained)
        typical = float(np.median(norms[np.isfinite(norms) & (norms > 0)]))

        def make(part: slice) -> np.ndarray:
            rows = found.made[part]
            own = np.linalg.norm(rows, axis=1, keepdims=True)
            scale = np.where(own > 0, typical / np.maximum(own, np.finfo(np.float32).tiny), 1.0)
            return np.asarray(rows * scale, np.float32)

        return dataclasses.replace(found, made=MadeRows(len(found.made), problem.source.width, make))

    def _with_named(self, problem: Problem) -> Problem:
        """Put the tokens that the user named in the place of a new token's own pieces."""
        if not self.named:
            return problem
        missing, own = problem.missing.tolist(), problem.pieces
        lists = [
            list(self.named[token]) if token in self.named else own.ids[own.start[n] : own.start[n + 1]].tolist()
            for n, token in enumerate(missing)
        ]
        return dataclasses.replace(problem, pieces=Pieces.from_lists(lists))

    def held(self, sizes: Sizes) -> int:
        """Return what the method itself holds."""
        return self.method.held(sizes)

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """Count those of the method."""
        return self.method.flops(missing, anchors, width)

    def donor_use(self) -> DonorUse:
        """Return that of the method."""
        return self.method.donor_use()


def read_named(pairs: Sequence[str], target: Vocabulary, source: Vocabulary, first: int) -> dict[int, tuple[int, ...]]:
    """Read "NEW=OLD+OLD" pairs as new id -> old ids.

    A token may contain "=" or "+": a pair is split where all sides are tokens.

    Args:
        pairs: What the user typed.
        target: The vocabulary with the new tokens.
        source: The vocabulary of the source model.
        first: The first new id.

    Raises:
        UsageError: unknown-token.
    """
    named: dict[int, tuple[int, ...]] = {}
    for pair in pairs:
        for place in (n for n, character in enumerate(pair) if character == "="):
            new, old = _new(pair[:place], target, first), _old(pair[place + 1 :], source)
            if new is not None and old:
                named[new] = old
                break
        else:
            left, _, right = pair.partition("=")
            is_new = _new(left, target, first) is not None
            near = did_you_mean(left, [one.strip("▁Ġ") for one in target.text[first:]]) if not is_new else ""
            raise UsageError(
                "unknown-token",
                f"--map-token {pair!r}: "
                + (f"the tokenizer has no token {right!r}" if is_new else f"{left!r} is not a new token{near}"),
                "write it as NEW=OLD or NEW=OLD+OLD, each token as its text",
            )
    return named


def _new(text: str, target: Vocabulary, first: int) -> int | None:
    """The new token of a text, with a space before it or without."""
    ids = (target.id_of.get(form.encode("utf-8", "surrogateescape")) for form in (text, f" {text}"))
    return next((token for token in ids if token is not None and token >= first), None)


def _old(text: str, source: Vocabulary) -> tuple[int, ...]:
    """The old tokens of a text: one token, or several with `+` between them; () where one is unknown."""
    whole = source.find(text)
    if whole is not None:
        return (whole,)
    parts = [source.find(part) for part in text.split("+")]
    return tuple(part for part in parts if part is not None) if None not in parts else ()
