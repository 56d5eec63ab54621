"""Where a loss sits: by kind of token, by token, beside the source's loss on the same bytes. Pure arithmetic.

Two tokenizers cut a text at different places, so their losses can be compared only between places where both have a
boundary. The bytes between two such neighbours are a *stretch*: often one token on both sides, sometimes several
against several. A stretch has an exact loss under either model, and the stretches of a text add up to the whole; how
a stretch's loss would divide among its tokens is not defined across tokenizers, so tokswap does not divide it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

MISSING, AFTER, SHARED, RECUT, ALIKE = "missing", "after", "shared", "recut", "alike"
"""The kinds. Of a token: missing (its row was made), after (the token before is missing), shared. Of a stretch:
missing (it holds a missing token), after (it begins with the token after one), recut (its tokens are shared, and cut
otherwise than the source cuts these bytes), alike (one shared token, the same bytes as one token of the source)."""


@dataclass(frozen=True)
class Span:
    """The tokens of one text from a byte on: ids int64[n], start and end int64[n] in bytes, bits float64[n].

    missing: bool[n], whether a token's row was made. after: bool[n], whether the token before it is missing, itself not.
    """

    ids: np.ndarray
    start: np.ndarray
    end: np.ndarray
    bits: np.ndarray
    missing: np.ndarray
    after: np.ndarray

    @classmethod
    def of(cls, ids: np.ndarray, offsets: np.ndarray, bits: np.ndarray, begin: int, made: np.ndarray) -> Span:
        """Take a text's tokens from byte `begin` on, which must be a boundary. made: the ids whose rows were made."""
        missing = np.isin(ids, made)
        after = ~missing & np.concatenate([[False], missing[:-1]])
        first = int(np.searchsorted(offsets, begin))
        return cls(ids[first:], offsets[first:-1], offsets[first + 1 :], bits[first:], missing[first:], after[first:])


@dataclass(frozen=True)
class Part:
    """What one kind of token or stretch adds to a loss. source_bits: the source's on the same bytes, None without."""

    kind: str
    tokens: int
    bytes: int
    bits: float
    source_bits: float | None = None


@dataclass(frozen=True)
class Piece:
    """A piece of text that occurs `count` times: its bits in all, and the source's where there is one.

    tokens: how many tokens it takes. kind: the kind of a token or stretch at its first place.
    """

    token_bytes: bytes
    kind: str
    count: int
    tokens: int
    bits: float
    source_bits: float | None = None


def parts_by_token(spans: Sequence[Span]) -> list[Part]:
    """Divide a loss by the kind of its tokens."""
    named = {
        MISSING: [span.missing for span in spans],
        AFTER: [span.after for span in spans],
        SHARED: [~span.missing & ~span.after for span in spans],
    }
    return [
        Part(
            kind,
            sum(int(np.count_nonzero(mask)) for mask in masks),
            sum(int((span.end - span.start)[mask].sum()) for span, mask in zip(spans, masks, strict=True)),
            sum(float(span.bits[mask].sum()) for span, mask in zip(spans, masks, strict=True)),
        )
        for kind, masks in named.items()
    ]


@dataclass(frozen=True)
class Stretches:
    """A text cut where both tokenizers have a boundary: edges int64[n + 1] and, for each stretch, its tokens and bits
    under both models and its kind, an index into KINDS.
    """

    KINDS = (MISSING, AFTER, RECUT, ALIKE)

    edges: np.ndarray
    kind: np.ndarray
    tokens: np.ndarray
    bits: np.ndarray
    source_bits: np.ndarray

    @classmethod
    def of(cls, span: Span, source: Span) -> Stretches:
        """Cut one text. Both spans must begin at the same byte and end at the same byte."""
        first, last = span.start[:1], span.end[-1:]
        edges = np.union1d(np.union1d(first, np.intersect1d(span.end, source.end)), last)
        n = len(edges) - 1
        own, other = (np.clip(np.searchsorted(edges, s.start, side="right") - 1, 0, n - 1) for s in (span, source))
        tokens = np.bincount(own, minlength=n)
        begins = np.zeros(n, bool)
        begins[own[span.after & (np.diff(own, prepend=-1) > 0)]] = True
        missing = np.bincount(own, weights=span.missing, minlength=n) > 0
        alike = (tokens == 1) & (np.bincount(other, minlength=n) == 1)
        kind = np.select([missing, begins, ~alike], [0, 1, 2], 3)
        return cls(
            edges,
            kind,
            tokens,
            np.bincount(own, weights=span.bits, minlength=n),
            np.bincount(other, weights=source.bits, minlength=n),
        )


def parts_by_stretch(stretches: Sequence[Stretches]) -> list[Part]:
    """Divide a loss, and the source's, by the kind of the stretches."""
    kind = np.concatenate([s.kind for s in stretches])
    columns = [
        np.concatenate(values)
        for values in (
            [s.tokens for s in stretches],
            [np.diff(s.edges) for s in stretches],
            [s.bits for s in stretches],
            [s.source_bits for s in stretches],
        )
    ]
    sums = [np.bincount(kind, weights=values, minlength=len(Stretches.KINDS)) for values in columns]
    return [
        Part(name, int(sums[0][n]), int(sums[1][n]), float(sums[2][n]), float(sums[3][n]))
        for n, name in enumerate(Stretches.KINDS)
    ]


def costliest_tokens(texts: Sequence[bytes], spans: Sequence[Span], count: int = 10) -> list[Piece]:
    """The tokens with the most bits in all."""
    found: dict[int, Piece] = {}
    for text, span in zip(texts, spans, strict=True):
        rows = zip(
            *(a.tolist() for a in (span.ids, span.start, span.end, span.bits, span.missing, span.after)), strict=True
        )
        for token, start, end, bits, missing, after in rows:
            kind = MISSING if missing else AFTER if after else SHARED
            seen = found.get(token) or Piece(text[start:end], kind, 0, 1, 0.0)
            # One token may stand for different text where a tokenizer changes it; the first is shown. A token that
            # follows a missing one here and not there is a shared token.
            kind = seen.kind if seen.count == 0 or seen.kind == kind else SHARED
            found[token] = Piece(seen.token_bytes, kind, seen.count + 1, 1, seen.bits + bits)
    return sorted(found.values(), key=lambda piece: -piece.bits)[:count]


def costliest_stretches(texts: Sequence[bytes], stretches: Sequence[Stretches], count: int = 10) -> list[Piece]:
    """The stretches that cost most more than they cost the source, in all."""
    found: dict[bytes, Piece] = {}
    for text, cut in zip(texts, stretches, strict=True):
        rows = zip(
            *(a.tolist() for a in (cut.edges[:-1], cut.edges[1:], cut.kind, cut.tokens, cut.bits, cut.source_bits)),
            strict=True,
        )
        for start, end, kind, tokens, bits, source_bits in rows:
            surface = text[start:end]
            seen = found.get(surface) or Piece(surface, Stretches.KINDS[kind], 0, tokens, 0.0, 0.0)
            assert seen.source_bits is not None
            found[surface] = Piece(
                surface, seen.kind, seen.count + 1, seen.tokens, seen.bits + bits, seen.source_bits + source_bits
            )
    worst = sorted(found.values(), key=lambda piece: (piece.source_bits or 0.0) - piece.bits)
    return worst[:count]


def paragraphs(text: bytes, least: int) -> np.ndarray:
    """Cut a text after blank lines into parts of `least` bytes or more, and longer ones into parts of that size.

    Returns the edges, int64[n + 1]. A text without blank lines gives parts of one size.
    """
    edges = [0]
    for end in [*_blank_lines(text), len(text)]:
        while end - edges[-1] >= 3 * least:
            edges.append(edges[-1] + least)
        if end - edges[-1] >= least:
            edges.append(end)
    if edges[-1] < len(text):  # what is left joins the last part
        edges[-1 if len(edges) > 1 else len(edges) :] = [len(text)]
    return np.array(edges, np.int64)


def _blank_lines(text: bytes) -> Iterator[int]:
    at = text.find(b"\n\n")
    while at >= 0:
        end = at + 2
        while text[end : end + 1] == b"\n":
            end += 1
        yield end
        at = text.find(b"\n\n", end)


def per_unit(span: Span, edges: np.ndarray) -> np.ndarray:
    """Return the bits of each unit, float64[n]; a token that crosses an edge counts where it begins."""
    unit = np.clip(np.searchsorted(edges, span.start, side="right") - 1, 0, len(edges) - 2)
    return np.bincount(unit, weights=span.bits, minlength=len(edges) - 1)


FEWEST_UNITS = 5
"""Below this many units there is no interval to speak of."""


def interval(
    groups: Sequence[tuple[np.ndarray, np.ndarray]], seed: int, *, draws: int = 2000
) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of bits / bytes when units are drawn again, with replacement.

    groups: (bits float64[n], bytes[n]) a text, drawn from by itself, so that texts keep their shares. The draws
    depend on the seed and the sizes alone: pass differences of bits for a paired interval. None below FEWEST_UNITS.
    """
    if sum(len(bits) for bits, _ in groups) < FEWEST_UNITS:
        return None
    random = np.random.default_rng(seed)
    paid, size = np.zeros(draws), np.zeros(draws)
    for bits, nbytes in groups:
        n = len(bits)
        for begin in range(0, draws, 100):  # a block of draws at a time: a long text has many units
            times = random.multinomial(n, np.full(n, 1 / n), size=min(100, draws - begin))
            paid[begin : begin + 100] += times @ bits
            size[begin : begin + 100] += times @ nbytes
    low, high = np.percentile(paid / np.maximum(size, 1), [2.5, 97.5])
    return float(low), float(high)
