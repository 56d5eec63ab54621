"""Methods as users write them: `omp`, `omp(k=32)`, and sums such as `0.8*kriging + 0.2*subword(weights=first)`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from tokswap.checkpoint.embeddings import NewRows
from tokswap.errors import UsageError
from tokswap.init.base import BaseModel, DonorUse, Initializer, Problem, Rows, Sizes
from tokswap.init.made_rows import MadeRows
from tokswap.init.registry import make_initializer
from tokswap.init.resources.protocol import Resources

_PART = re.compile(
    r"\s*(?:(?P<weight>\d*\.?\d+)\s*\*\s*)?(?P<name>[a-z][a-z0-9_-]*)\s*(?:\((?P<settings>[^()]*)\))?\s*"
)


class Part(NamedTuple):
    """One method of a sum."""

    weight: float
    name: str
    method: Initializer


@dataclass(frozen=True)
class Blend(Initializer):
    """The weighted mean of the rows of several methods.

    Attributes:
        parts: The methods; their weights add up to 1.
    """

    parts: tuple[Part, ...]

    summary: ClassVar[str] = "the weighted mean of several methods"
    reference: ClassVar[str] = "this project"

    def __call__(self, problem: Problem) -> Rows:
        """Add up the rows of each part."""
        made: list[tuple[float, NewRows]] = []
        diagnostics: dict[str, np.ndarray] = {}
        evidence: dict[str, Any] = {}
        notes: tuple[str, ...] = ()
        for weight, name, method in self.parts:
            own = method(problem)
            made.append((weight, own.made))
            diagnostics |= {f"{name} {key}": values for key, values in own.diagnostics.items()}
            evidence |= own.evidence
            notes += own.notes

        def make(part: slice) -> np.ndarray:
            total = np.zeros((part.stop - part.start, problem.source.width), np.float32)
            for weight, rows in made:
                total += np.float32(weight) * rows[part]
            return total

        rows = MadeRows(len(problem.missing), problem.source.width, make)
        return Rows(rows, diagnostics, evidence, notes=notes)

    def held(self, sizes: Sizes) -> int:
        """Return the sum over the parts."""
        return sum(method.held(sizes) for _, _, method in self.parts)

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """Return the sum over the parts."""
        return sum(method.flops(missing, anchors, width) for _, _, method in self.parts)

    def donor_use(self) -> DonorUse:
        """Return the most that a part asks for."""
        uses = {method.donor_use() for _, _, method in self.parts}
        return "required" if "required" in uses else "optional" if "optional" in uses else "none"

    def check(self, base: BaseModel, resources: Resources) -> None:
        """Check each part."""
        for _, _, method in self.parts:
            method.check(base, resources)


def read_method(spec: str, settings: Mapping[str, object] | None = None) -> Initializer:
    """Return the method that a text names.

    Args:
        spec: A method, with settings in parentheses if any; or several, each with an optional weight, joined by `+`.
        settings: More settings, where `spec` is a single method.

    Raises:
        UsageError: unknown-method, unknown-setting, bad-setting, bad-method.
    """
    parts = [_read_part(text) for text in _split(spec)]
    if len(parts) == 1:
        _, name, own = parts[0]
        return make_initializer(name, {**own, **(settings or {})})
    if settings:
        raise UsageError(
            "bad-setting",
            f"settings for a sum of methods go into its parentheses: {spec!r}",
            f"write {parts[0][1]}({next(iter(settings))}=...) + ...",
        )
    total = sum(weight for weight, _, _ in parts)
    if not total > 0:
        raise UsageError("bad-method", f"the weights of {spec!r} add up to 0")
    return Blend(tuple(Part(weight / total, name, make_initializer(name, own)) for weight, name, own in parts))


def described(initializer: Initializer) -> dict[str, Any]:
    """Return the settings of a method as plain data; those of a sum by its parts."""
    if isinstance(initializer, Blend):
        names = [part.name for part in initializer.parts]
        return {
            f"{name} ({n})" if names.count(name) > 1 else name: {"weight": round(weight, 4), **described(method)}
            for n, (weight, name, method) in enumerate(initializer.parts, 1)
        }
    return dataclasses.asdict(initializer)


def _split(spec: str) -> list[str]:
    """Split a sum at each `+` outside parentheses."""
    parts, depth = [""], 0
    for character in spec:
        depth += (character == "(") - (character == ")")
        if character == "+" and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _read_part(text: str) -> tuple[float, str, dict[str, object]]:
    """Read "weight*name(key=value, key=value)" as weight, name and settings."""
    match = _PART.fullmatch(text)
    if match is None:
        raise UsageError(
            "bad-method",
            f"{text.strip()!r} is not how a method is written",
            "write NAME, NAME(key=value, key=value), or a sum such as 0.8*kriging + 0.2*subword(weights=first)",
        )
    settings: dict[str, object] = {}
    for pair in filter(None, (pair.strip() for pair in (match["settings"] or "").split(","))):
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError("bad-method", f"{pair!r} is not a setting", "write key=value")
        settings[key.strip()] = value.strip()
    return float(match["weight"] or 1), match["name"], settings
