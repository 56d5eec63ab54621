"""The result of an evaluation: a score and samples for each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from tokswap.errors import count_of
from tokswap.evaluation.bootstrap import Units
from tokswap.evaluation.probes.scores import ProbeScore
from tokswap.evaluation.scores import ModelScore
from tokswap.report.record import versions


@dataclass(frozen=True)
class Judged:
    """The result of one model.

    Attributes:
        model: Its name.
        is_source: Whether it is the source model.
        score: Its score on all texts together.
        samples: Its continuation of each prompt.
        notes: What to know about it.
        probes: Its score on each probe and task.
    """

    model: str
    is_source: bool
    score: ModelScore
    samples: Mapping[str, str]
    notes: Sequence[str]
    probes: Mapping[str, ProbeScore] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The results of several models on the same bytes.

    Attributes:
        models: The result of each model, the source first.
        texts: Names of the texts.
        against: Name of the source model, None without one.
        settings: How the texts were read.
        units: What the intervals are drawn from.
    """

    models: Sequence[Judged]
    texts: Sequence[str]
    against: str | None
    settings: Mapping[str, object]
    units: Units

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "against": self.against,
            "settings": dict(self.settings),
            "units": {"kind": self.units.kind, "count": {n: len(e) - 1 for n, e in self.units.edges.items()}},
            "models": [
                {
                    "model": judged.model,
                    "is_source": judged.is_source,
                    "all": judged.score.as_dict(),
                    "texts": {name: judged.score.only(name).as_dict() for name in self.texts},
                    "samples": dict(judged.samples),
                    "notes": list(judged.notes),
                    "probes": {name: found.as_dict() for name, found in judged.probes.items()},
                }
                for judged in self.models
            ],
            "versions": versions(),
        }

    def __repr__(self) -> str:
        rows = [("", "bits per byte", "excess"), *self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f"{row[0]:{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}".rstrip() for row in rows]
        return "\n".join([self._title(), *lines])

    def _repr_html_(self) -> str:
        cells = [[escape(cell) for cell in row] for row in self._rows()]
        body = "".join(f"<tr><th>{row[0]}</th><td>{row[1]}</td><td>{row[2]}</td></tr>" for row in cells)
        head = "<tr><th></th><th>bits per byte</th><th>excess</th></tr>"
        return f"<table><caption>{escape(self._title())}</caption><thead>{head}</thead><tbody>{body}</tbody></table>"

    def _title(self) -> str:
        count, size = len(self.texts), self.models[0].score.bytes
        return f"Evaluation on {count_of(count, 'text')}, {count_of(size, 'byte')}"

    def _rows(self) -> list[tuple[str, str, str]]:
        return [
            (
                one.model + " (source)" * one.is_source,
                f"{one.score.bits_per_byte:.3f}",
                "" if one.score.excess is None else f"{one.score.excess:+.3f}",
            )
            for one in self.models
        ]
