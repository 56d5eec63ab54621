"""The score of a model on texts: its loss, its excess over the source, where they come from, their intervals. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from tokswap.errors import count_of
from tokswap.evaluation import bootstrap, breakdown
from tokswap.evaluation.bootstrap import Units
from tokswap.evaluation.breakdown import Part, Piece, Span, Stretches

_MOST_BITS = 1000.0
"""More bits per word than this give a ratio that no float holds."""


@dataclass(frozen=True, repr=False)
class ModelScore:
    """The score of one model on some texts: on all of them together, or on one.

    Only bytes that every evaluated model predicts count, so scores compare.

    Attributes:
        texts: The texts by name.
        spans: The model's tokens of each text.
        source: The source model's tokens of each text. None for the source itself and where there is no source.
        known: Whether it is known which rows of the model were initialised.
        units: What the intervals are drawn from.
        seed: Seed of the draws.
    """

    texts: Mapping[str, bytes]
    spans: Mapping[str, Span]
    source: Mapping[str, Span] | None
    known: bool
    units: Units
    seed: int

    def __repr__(self) -> str:
        excess = "" if self.excess is None else f", excess {self.excess:+.3f}"
        return f"<ModelScore: {self.bits_per_byte:.3f} bits per byte{excess}, {count_of(self.bytes, 'byte')}>"

    def only(self, name: str) -> ModelScore:
        """Return the score on one of the texts."""
        source = None if self.source is None else {name: self.source[name]}
        return replace(self, texts={name: self.texts[name]}, spans={name: self.spans[name]}, source=source)

    @cached_property
    def bytes(self) -> int:
        """Bytes of text that are predicted."""
        return sum(len(self.texts[name]) - int(span.start[0]) for name, span in self.spans.items())

    @property
    def tokens(self) -> int:
        """Tokens of these bytes."""
        return sum(len(span.ids) for span in self.spans.values())

    @property
    def bits(self) -> float:
        """Their loss in bits."""
        return _bits(self.spans)

    @property
    def bits_per_byte(self) -> float:
        """The loss in bits per byte."""
        return self.bits / self.bytes

    @property
    def excess(self) -> float | None:
        """Bits per byte above the source model's."""
        return None if self.source is None else (self.bits - _bits(self.source)) / self.bytes

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the loss in bits per byte; see `bootstrap.interval`."""
        return self._interval(None)

    @cached_property
    def excess_interval(self) -> tuple[float, float] | None:
        """95 % interval of the excess, from the same units of both models."""
        return None if self.source is None else self._interval(self.source)

    @cached_property
    def words(self) -> int:
        """Words of the predicted bytes: what stands between white space."""
        return sum(len(self.texts[name][int(span.start[0]) :].split()) for name, span in self.spans.items())

    @property
    def word_perplexity_ratio(self) -> float | None:
        """Perplexity per word divided by the source model's, whatever tokens both have."""
        return self._per_word(self.excess)

    @property
    def word_perplexity_ratio_interval(self) -> tuple[float, float] | None:
        """95 % interval of the ratio, from that of the excess."""
        low, high = (self._per_word(bound) for bound in self.excess_interval or (None, None))
        return None if low is None or high is None else (low, high)

    def _per_word(self, excess: float | None) -> float | None:
        if excess is None or not self.words:
            return None
        return float(2.0 ** min(excess * self.bytes / self.words, _MOST_BITS))

    def _interval(self, source: Mapping[str, Span] | None) -> tuple[float, float] | None:
        groups = []
        for name, span in self.spans.items():
            edges = self.units.edges[name]
            bits = bootstrap.per_unit(span, edges)
            if source is not None:
                bits = bits - bootstrap.per_unit(source[name], edges)
            groups.append((bits, np.diff(np.maximum(edges, span.start[0]))))
        if self.units.kind == "texts":  # one group of many texts
            groups = [(np.concatenate([bits for bits, _ in groups]), np.concatenate([size for _, size in groups]))]
        return bootstrap.interval(groups, self.seed)

    @cached_property
    def _stretches(self) -> list[Stretches]:
        assert self.source is not None
        return [Stretches.of(span, self.source[name]) for name, span in self.spans.items()]

    @property
    def parts(self) -> list[Part]:
        """The loss by kind of stretch, without a source by kind of token; [] if the initialised rows are not known."""
        if not self.known or self.source is None:
            return self.token_parts
        return breakdown.parts_by_stretch(self._stretches)

    @property
    def token_parts(self) -> list[Part]:
        """The loss by kind of token; [] if the initialised rows are not known."""
        return breakdown.parts_by_token(list(self.spans.values())) if self.known else []

    @property
    def costliest(self) -> list[Piece]:
        """The ten tokens with the largest total loss."""
        return breakdown.costliest_tokens(list(self.texts.values()), list(self.spans.values()))

    @property
    def costliest_excess(self) -> list[Piece]:
        """The ten stretches with the largest total excess; [] without a source."""
        return [] if self.source is None else breakdown.costliest_stretches(list(self.texts.values()), self._stretches)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON. Every figure per byte is per byte of all texts, so that parts add up."""
        parts = {"parts": self.parts, "token_parts": self.token_parts}
        pieces = {"costliest": self.costliest, "costliest_excess": self.costliest_excess}
        return {
            "bytes": self.bytes,
            "tokens": self.tokens,
            "bits": self.bits,
            "bits_per_byte": self.bits_per_byte,
            "interval": self.interval,
            "excess": self.excess,
            "excess_interval": self.excess_interval,
            "words": self.words,
            "word_perplexity_ratio": self.word_perplexity_ratio,
            "word_perplexity_ratio_interval": self.word_perplexity_ratio_interval,
            "tokens_per_byte": self.tokens / self.bytes,
            **{key: [self._part(part) for part in values] for key, values in parts.items()},
            **{key: [self._piece(piece) for piece in values] for key, values in pieces.items()},
        }

    def _part(self, part: Part) -> dict[str, Any]:
        return {
            "kind": part.kind,
            "tokens": part.tokens,
            "share_of_bytes": part.bytes / self.bytes,
            "bits_per_byte": part.bits / self.bytes,
            "bits_per_token": part.bits / part.tokens if part.tokens else None,
            **self._beside(part.bits, part.source_bits),
        }

    def _piece(self, piece: Piece) -> dict[str, Any]:
        return {
            "text": piece.token_bytes.decode("utf-8", "backslashreplace"),
            "kind": piece.kind if self.known else None,
            "count": piece.count,
            "tokens": piece.tokens,
            "bits_each": piece.bits / piece.count,
            "bits_per_byte": piece.bits / self.bytes,
            **self._beside(piece.bits, piece.source_bits),
        }

    def _beside(self, bits: float, source: float | None) -> dict[str, float]:
        if source is None:
            return {}
        return {"source_bits_per_byte": source / self.bytes, "excess": (bits - source) / self.bytes}


def _bits(spans: Mapping[str, Span]) -> float:
    return sum(float(span.bits.sum()) for span in spans.values())
