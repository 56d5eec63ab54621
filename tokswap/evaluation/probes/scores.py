"""The score of a model on a probe, beside the source model's on the same questions. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np

from tokswap.evaluation import bootstrap
from tokswap.evaluation.probes.ask import Asked

_SURE = 0.05
"""So unlikely must a score be for a model that guesses, before it counts as knowledge."""


@dataclass(frozen=True)
class ProbeScore:
    """The score of one model on one probe.

    Attributes:
        asked: How the model did.
        source: How the source model did. None for the source itself and where there is no source.
        seed: Seed of the intervals.
    """

    asked: Asked
    source: Asked | None
    seed: int

    @property
    def questions(self) -> int:
        """Number of questions."""
        return len(self.asked.points)

    @property
    def score(self) -> float:
        """Mean points, between 0 and 1."""
        return float(self.asked.points.mean())

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the score, for other questions of each part."""
        return self._interval(self.asked.points)

    @property
    def chance(self) -> float:
        """What a model that knows nothing scores."""
        return float(np.mean([self.asked.chance[part] for part in self.asked.parts]))

    @property
    def difference(self) -> float | None:
        """The score minus the source model's."""
        return None if self.source is None else self.score - float(self.source.points.mean())

    @property
    def difference_interval(self) -> tuple[float, float] | None:
        """95 % interval of the difference, from the same questions of both models."""
        return None if self.source is None else self._interval(self.asked.points - self.source.points)

    @property
    def parts(self) -> list[str]:
        """The parts of the probe."""
        return list(dict.fromkeys(self.asked.parts))

    def only(self, part: str) -> ProbeScore:
        """Return the score on one part."""
        return ProbeScore(_part(self.asked, part), self.source and _part(self.source, part), self.seed)

    @property
    def at_chance(self) -> list[str]:
        """The parts on which the reference (the source model, or this model without one) does no better than chance."""
        return [part for part in self.parts if _is_chance(_part(self.source or self.asked, part))]

    @property
    def note(self) -> str | None:
        """A warning for the reader: where the source model is at chance, a difference means nothing."""
        unknown = self.at_chance
        if self.source is None or not unknown:
            return None
        if len(unknown) == len(self.parts):
            return "the source model knows none of it: nothing to compare"
        return f"the source model knows none of {', '.join(unknown)}: nothing to compare there"

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "measure": self.asked.measure,
            **self._figures(),
            "parts": {part: self.only(part)._figures() for part in self.parts},
            "at_chance": self.at_chance,
            "note": self.note,
        }

    def _figures(self) -> dict[str, Any]:
        return {
            "questions": self.questions,
            "score": self.score,
            "interval": self.interval,
            "source": None if self.source is None else float(self.source.points.mean()),
            "difference": self.difference,
            "difference_interval": self.difference_interval,
            "chance": self.chance,
        }

    def _interval(self, points: np.ndarray) -> tuple[float, float] | None:
        parts = np.array(self.asked.parts)
        groups = [points[parts == part] for part in self.parts]
        return bootstrap.interval([(own, np.ones(len(own))) for own in groups], self.seed)


def _part(asked: Asked, part: str) -> Asked:
    own = np.array([one == part for one in asked.parts])
    return Asked(asked.measure, (part,) * int(own.sum()), points=asked.points[own], chance={part: asked.chance[part]})


def _is_chance(asked: Asked) -> bool:
    """Return whether a model that guesses would often score as much (binomial test)."""
    n, right = len(asked.points), round(float(asked.points.sum()))
    chance = asked.chance[asked.parts[0]]
    tail = sum(comb(n, k) * chance**k * (1 - chance) ** (n - k) for k in range(right, n + 1))
    return right == 0 or tail > _SURE
