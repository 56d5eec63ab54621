"""What a trained tokenizer does with text that it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tokswap.tokenizer.backend import make_backend
from tokswap.tokenizer.measures import renyi_efficiency
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind
from tokswap.train.trainers import encode

_SHOWN = 8
"""Longest tokens, and dead ones, that are named."""


@dataclass(frozen=True)
class Measured:
    """Figures of a tokenizer.

    Attributes:
        ids: Its number of ids.
        tokens_per_byte: On held-out text.
        renyi: Renyi efficiency of its tokens on held-out text, with alpha 2.5.
        longest: Its longest tokens, readable, the longest first.
        dead: How many of its tokens of several bytes neither the held-out text nor a sample of the trained text has.
        dead_named: Some of them, readable.
        crossing: Share of the tokens of the held-out text that go across a space.
    """

    ids: int
    tokens_per_byte: float
    renyi: float
    longest: tuple[str, ...]
    dead: int
    dead_named: tuple[str, ...]
    crossing: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def measure(tokenizer: Tokenizer, held_out: Sequence[str], trained: Sequence[str], *, binary: bool) -> Measured:
    """Measure a tokenizer.

    Args:
        tokenizer: The tokenizer.
        held_out: Pieces of text to measure on.
        trained: Pieces of the text that it was trained on, to look for dead tokens.
        binary: Whether the pieces are bytes in the byte alphabet.
    """
    vocabulary = tokenizer.vocabulary
    counts, others = (_counts(tokenizer, pieces, binary=binary) for pieces in (held_out, trained))
    nbytes = sum(len(piece) if binary else len(piece.encode("utf-8", "replace")) for piece in held_out)
    text = np.flatnonzero((vocabulary.kind == Kind.NORMAL) & ~vocabulary.unreachable)
    sizes = np.array([len(one) for one in vocabulary.token_bytes])
    dead = text[(counts[text] == 0) & (others[text] == 0) & (sizes[text] > 1)]  # single bytes are there to spell
    longest = text[np.lexsort((text, -sizes[text]))][:_SHOWN]
    crosses = np.array([b" " in one.strip() for one in vocabulary.token_bytes])
    total = int(counts.sum())
    return Measured(
        ids=len(vocabulary),
        tokens_per_byte=total / max(nbytes, 1),
        renyi=renyi_efficiency(counts, len(vocabulary)),
        longest=tuple(map(vocabulary.readable, longest.tolist())),
        dead=len(dead),
        dead_named=tuple(map(vocabulary.readable, dead[:_SHOWN].tolist())),
        crossing=float(counts[crosses].sum()) / max(total, 1),
    )


def _counts(tokenizer: Tokenizer, pieces: Sequence[str], *, binary: bool) -> np.ndarray:
    backend = tokenizer.backend
    if binary:  # the pieces are in the byte alphabet already
        spec: Mapping[str, Any] = {**tokenizer.spec, "pre_tokenizer": None, "added_tokens": [], "post_processor": None}
        backend = make_backend(spec, tokenizer.path)
    counts = np.zeros(len(tokenizer.vocabulary), np.int64)
    for ids in encode(backend, pieces):
        counts += np.bincount(ids, minlength=len(counts))
    return counts
