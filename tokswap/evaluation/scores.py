"""What a model makes of texts: its loss, its excess over the source, where it sits, and how sure the figures are. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tokswap.evaluation import breakdown
from tokswap.evaluation.breakdown import Part, Piece, Span, Stretches

WHOLE_FILES = 20
"""From so many texts on, the texts are the units of the bootstrap; with fewer their paragraphs are."""
_UNITS = 100
_LEAST_UNIT = 200


@dataclass(frozen=True)
class Units:
    """What the bootstrap draws: edges of each text's units in bytes, and what they are called."""

    edges: Mapping[str, np.ndarray]
    kind: str

    @classmethod
    def of(cls, texts: Mapping[str, bytes]) -> Units:
        """Divide texts into units."""
        if len(texts) >= WHOLE_FILES:
            return cls({name: np.array([0, len(text)]) for name, text in texts.items()}, "texts")
        edges = {
            name: breakdown.paragraphs(text, max(_LEAST_UNIT, len(text) // _UNITS)) for name, text in texts.items()
        }
        return cls(edges, "paragraphs")


@dataclass(frozen=True)
class Verdict:
    """What one model makes of some texts; of all of them together, or of one.

    texts: name -> bytes. spans: the model's tokens of each. source: the source model's, None for the source itself
    and where there is none. known: whether it is known which rows were made. Bits are over the bytes that every
    judged model predicts, so that verdicts compare.
    """

    texts: Mapping[str, bytes]
    spans: Mapping[str, Span]
    source: Mapping[str, Span] | None
    known: bool
    units: Units
    seed: int

    def only(self, name: str) -> Verdict:
        """Return the verdict on one of the texts."""
        source = None if self.source is None else {name: self.source[name]}
        return Verdict({name: self.texts[name]}, {name: self.spans[name]}, source, self.known, self.units, self.seed)

    @cached_property
    def bytes(self) -> int:
        """Bytes of text that are predicted."""
        return sum(len(self.texts[name]) - int(span.start[0]) for name, span in self.spans.items())

    @property
    def tokens(self) -> int:
        """Tokens that they are cut into."""
        return sum(len(span.ids) for span in self.spans.values())

    @property
    def bits(self) -> float:
        """What they cost in all."""
        return sum(float(span.bits.sum()) for span in self.spans.values())

    @property
    def bits_per_byte(self) -> float:
        """The loss."""
        return self.bits / self.bytes

    @property
    def excess(self) -> float | None:
        """Bits per byte more than the source's."""
        if self.source is None:
            return None
        return (self.bits - sum(float(span.bits.sum()) for span in self.source.values())) / self.bytes

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the loss; see `breakdown.interval`."""
        return self._interval(None)

    @cached_property
    def excess_interval(self) -> tuple[float, float] | None:
        """95 % interval of the excess, from the same units of both models."""
        return None if self.source is None else self._interval(self.source)

    def _interval(self, source: Mapping[str, Span] | None) -> tuple[float, float] | None:
        groups = []
        for name, span in self.spans.items():
            edges = self.units.edges[name]
            bits = breakdown.per_unit(span, edges)
            if source is not None:
                bits = bits - breakdown.per_unit(source[name], edges)
            groups.append((bits, np.diff(np.maximum(edges, span.start[0]))))
        if self.units.kind == "texts":  # one group of many texts
            groups = [(np.concatenate([bits for bits, _ in groups]), np.concatenate([size for _, size in groups]))]
        return breakdown.interval(groups, self.seed)

    @cached_property
    def _stretches(self) -> list[Stretches]:
        assert self.source is not None
        return [Stretches.of(span, self.source[name]) for name, span in self.spans.items()]

    @property
    def parts(self) -> list[Part]:
        """Where the loss sits: by stretch where there is a source, else by token; [] where the made rows are not known."""
        if not self.known:
            return []
        if self.source is not None:
            return breakdown.parts_by_stretch(self._stretches)
        return breakdown.parts_by_token(list(self.spans.values()))

    @property
    def token_parts(self) -> list[Part]:
        """The loss by the kind of its tokens, whatever the source pays; [] where the made rows are not known."""
        return breakdown.parts_by_token(list(self.spans.values())) if self.known else []

    @property
    def costliest(self) -> list[Piece]:
        """The ten tokens that cost most in all."""
        return breakdown.costliest_tokens(list(self.texts.values()), list(self.spans.values()))

    @property
    def costliest_excess(self) -> list[Piece]:
        """The ten stretches that cost most more than they cost the source; [] without one."""
        return [] if self.source is None else breakdown.costliest_stretches(list(self.texts.values()), self._stretches)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; every figure a byte is over all predicted bytes, so that parts add up."""
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
