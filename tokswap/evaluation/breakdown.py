"""Where a loss comes from: by kind of token, by token, and beside the source model's loss on the same bytes. Pure.

Two tokenizers split a text at different places, so their losses compare only between places where both have a
boundary. The bytes between two such neighbours are a *stretch*: often one token on both sides, sometimes several on
each. A stretch has an exact loss under either model, and the stretches of a text add up to the whole. How the loss of a
stretch divides among its tokens is not defined across tokenizers, so tokswap does not divide it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MISSING = "missing"
"""A token whose row was initialised; a stretch that holds one."""
AFTER = "after"
"""A token right after a missing one; a stretch that begins with it."""
SHARED = "shared"
"""Any other token."""
RETOKENIZED = "recut"
"""A stretch of shared tokens where the source has other tokens."""
ALIKE = "alike"
"""A stretch that is one shared token, and one token of the source."""
STRETCH_KINDS = (MISSING, AFTER, RETOKENIZED, ALIKE)


@dataclass(frozen=True)
class Span:
    """The tokens of one text from a byte on.

    Attributes:
        ids: Token ids (int64 [n]).
        start: Where each token begins, in bytes (int64 [n]).
        end: Where each token ends, in bytes (int64 [n]).
        bits: Loss of each token (float64 [n]).
        missing: Whether the row of each token was initialised (bool [n]).
        after: Whether each token is not missing and comes right after a missing one (bool [n]).
    """

    ids: np.ndarray
    start: np.ndarray
    end: np.ndarray
    bits: np.ndarray
    missing: np.ndarray
    after: np.ndarray

    @classmethod
    def of(cls, ids: np.ndarray, offsets: np.ndarray, bits: np.ndarray, begin: int, initialised: np.ndarray) -> Span:
        """Take the tokens of a text from a byte on.

        Args:
            ids: Token ids of the whole text (int64 [n]).
            offsets: Their boundaries in bytes (int64 [n + 1]).
            bits: Their losses (float64 [n]).
            begin: The first byte to take; a boundary.
            initialised: Token ids whose rows were initialised (int64).
        """
        missing = np.isin(ids, initialised)
        after = ~missing & np.concatenate([[False], missing[:-1]])
        first = int(np.searchsorted(offsets, begin))
        return cls(
            ids=ids[first:],
            start=offsets[first:-1],
            end=offsets[first + 1 :],
            bits=bits[first:],
            missing=missing[first:],
            after=after[first:],
        )


@dataclass(frozen=True)
class Part:
    """The share of one kind of token or stretch in a loss.

    Attributes:
        kind: The kind.
        tokens: Tokens of this kind.
        bytes: Their bytes.
        bits: Their loss.
        source_bits: Loss of the source model on the same bytes, None without a source.
    """

    kind: str
    tokens: int
    bytes: int
    bits: float
    source_bits: float | None = None


@dataclass(frozen=True)
class Piece:
    """A token or stretch that occurs in the texts, with the loss of all its occurrences.

    Attributes:
        token_bytes: Its bytes.
        kind: Its kind at its first occurrence.
        count: How often it occurs.
        tokens: How many tokens it is.
        bits: Its loss.
        source_bits: Loss of the source model on the same bytes, None without a source.
    """

    token_bytes: bytes
    kind: str
    count: int
    tokens: int
    bits: float
    source_bits: float | None = None


@dataclass(frozen=True)
class Stretches:
    """A text, split where both tokenizers have a boundary.

    Attributes:
        edges: The boundaries in bytes (int64 [n + 1]).
        kind: Kind of each stretch, an index into `STRETCH_KINDS` (int64 [n]).
        tokens: Tokens of each stretch (int64 [n]).
        bits: Loss of each stretch (float64 [n]).
        source_bits: Loss of the source model on each stretch (float64 [n]).
    """

    edges: np.ndarray
    kind: np.ndarray
    tokens: np.ndarray
    bits: np.ndarray
    source_bits: np.ndarray

    @classmethod
    def of(cls, span: Span, source: Span) -> Stretches:
        """Split one text. Both spans must begin at the same byte and end at the same byte."""
        first, last = span.start[:1], span.end[-1:]
        edges = np.union1d(np.union1d(first, np.intersect1d(span.end, source.end)), last)
        n = len(edges) - 1
        own, other = (np.clip(np.searchsorted(edges, s.start, side="right") - 1, 0, n - 1) for s in (span, source))
        tokens = np.bincount(own, minlength=n)
        begins_after = np.zeros(n, bool)
        begins_after[own[span.after & (np.diff(own, prepend=-1) > 0)]] = True
        missing = np.bincount(own, weights=span.missing, minlength=n) > 0
        alike = (tokens == 1) & (np.bincount(other, minlength=n) == 1)
        return cls(
            edges=edges,
            kind=np.select([missing, begins_after, ~alike], [0, 1, 2], 3),
            tokens=tokens,
            bits=np.bincount(own, weights=span.bits, minlength=n),
            source_bits=np.bincount(other, weights=source.bits, minlength=n),
        )


def parts_by_token(spans: Sequence[Span]) -> list[Part]:
    """Divide a loss by the kind of its tokens: missing, after, shared."""
    masks_of = {
        MISSING: [span.missing for span in spans],
        AFTER: [span.after for span in spans],
        SHARED: [~span.missing & ~span.after for span in spans],
    }
    return [
        Part(
            kind=kind,
            tokens=sum(int(np.count_nonzero(mask)) for mask in masks),
            bytes=sum(int((span.end - span.start)[mask].sum()) for span, mask in zip(spans, masks, strict=True)),
            bits=sum(float(span.bits[mask].sum()) for span, mask in zip(spans, masks, strict=True)),
        )
        for kind, masks in masks_of.items()
    ]


def parts_by_stretch(stretches: Sequence[Stretches]) -> list[Part]:
    """Divide a loss, and the source's, by the kind of the stretches: missing, after, retokenized, alike."""
    kind = np.concatenate([s.kind for s in stretches])
    tokens, size, bits, source_bits = (
        np.bincount(kind, weights=np.concatenate(values), minlength=len(STRETCH_KINDS))
        for values in (
            [s.tokens for s in stretches],
            [np.diff(s.edges) for s in stretches],
            [s.bits for s in stretches],
            [s.source_bits for s in stretches],
        )
    )
    return [
        Part(
            kind=name,
            tokens=int(tokens[n]),
            bytes=int(size[n]),
            bits=float(bits[n]),
            source_bits=float(source_bits[n]),
        )
        for n, name in enumerate(STRETCH_KINDS)
    ]


def costliest_tokens(texts: Sequence[bytes], spans: Sequence[Span], count: int = 10) -> list[Piece]:
    """Return the tokens with the largest total loss.

    Args:
        texts: The texts.
        spans: Their tokens.
        count: How many to return.
    """
    found: dict[int, Piece] = {}
    for text, span in zip(texts, spans, strict=True):
        columns = (span.ids, span.start, span.end, span.bits, span.missing, span.after)
        for token, start, end, bits, missing, after in zip(*(values.tolist() for values in columns), strict=True):
            kind = MISSING if missing else AFTER if after else SHARED
            seen = found.get(token)
            # One id may stand for several texts where a tokenizer normalises; the first is shown. A token that comes
            # after a missing one only sometimes is a shared token.
            found[token] = Piece(
                token_bytes=seen.token_bytes if seen else text[start:end],
                kind=kind if seen is None or seen.kind == kind else SHARED,
                count=(seen.count if seen else 0) + 1,
                tokens=1,
                bits=(seen.bits if seen else 0.0) + bits,
            )
    return sorted(found.values(), key=lambda piece: -piece.bits)[:count]


def costliest_stretches(texts: Sequence[bytes], stretches: Sequence[Stretches], count: int = 10) -> list[Piece]:
    """Return the stretches with the largest total excess over the source.

    Args:
        texts: The texts.
        stretches: Their stretches.
        count: How many to return.
    """
    found: dict[bytes, Piece] = {}
    for text, one in zip(texts, stretches, strict=True):
        columns = (one.edges[:-1], one.edges[1:], one.kind, one.tokens, one.bits, one.source_bits)
        for start, end, kind, tokens, bits, source in zip(*(values.tolist() for values in columns), strict=True):
            own = text[start:end]
            seen = found.get(own)
            found[own] = Piece(
                token_bytes=own,
                kind=seen.kind if seen else STRETCH_KINDS[kind],
                count=(seen.count if seen else 0) + 1,
                tokens=seen.tokens if seen else tokens,
                bits=(seen.bits if seen else 0.0) + bits,
                source_bits=((seen.source_bits if seen else None) or 0.0) + source,
            )
    return sorted(found.values(), key=lambda piece: (piece.source_bits or 0.0) - piece.bits)[:count]
