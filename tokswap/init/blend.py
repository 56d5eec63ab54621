"""Methods written down: `omp`, `omp(k=32)`, and weighted sums such as `0.8*kriging + 0.2*subword(weights=first)`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tokswap.errors import UsageError
from tokswap.init.base import Initializer, Problem, wants_donor
from tokswap.init.registry import make_initializer

_PART = re.compile(
    r"\s*(?:(?P<weight>\d*\.?\d+)\s*\*\s*)?(?P<name>[a-z][a-z0-9_-]*)\s*(?:\((?P<settings>[^()]*)\))?\s*"
)


@dataclass(frozen=True)
class Blend:
    """The weighted mean of what several methods make. parts: (weight, name, method); the weights add up to one."""

    parts: tuple[tuple[float, str, Initializer], ...]

    summary: ClassVar[str] = "the weighted mean of several methods"
    source: ClassVar[str] = "this project"

    @property
    def needs_donor(self) -> bool:
        """Whether one of the parts does."""
        return any(method.needs_donor for _, _, method in self.parts)

    @property
    def wants_donor(self) -> bool:
        """Whether one of the parts does."""
        return any(wants_donor(method) for _, _, method in self.parts)

    def __call__(self, problem: Problem) -> np.ndarray:
        """Return float32[M, D]."""
        result = np.zeros((len(problem.missing), problem.source.width), np.float32)
        for weight, name, method in self.parts:
            own = dataclasses.replace(problem, details={})
            result += np.float32(weight) * method(own)
            problem.details.update({f"{name} {key}": values for key, values in own.details.items()})
        return result

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """What the parts cost together."""
        return sum(method.flops(missing, anchors, width) for _, _, method in self.parts)


def read_method(spec: str, settings: Mapping[str, object] | None = None) -> Initializer:
    """Return the method that a text names.

    spec: a method; settings in parentheses; several, with weights or none, joined by `+`. settings: more of them for
    a spec that is one method. Raises UsageError: unknown-method, unknown-setting, bad-setting, bad-method.
    """
    parts = []
    for text in _split(spec):
        match = _PART.fullmatch(text)
        if match is None:
            raise UsageError(
                "bad-method",
                f"{text.strip()!r} is not how a method is written",
                "write NAME, NAME(key=value, key=value), or a sum such as 0.8*kriging + 0.2*subword(weights=first)",
            )
        own = _settings(match["settings"] or "")
        parts.append((float(match["weight"] or 1), match["name"], own))
    if len(parts) == 1:
        return make_initializer(parts[0][1], {**parts[0][2], **(settings or {})})
    if settings:
        raise UsageError(
            "bad-setting",
            f"settings for a sum of methods go into its parentheses: {spec!r}",
            f"write {parts[0][1]}({next(iter(settings))}=...) + ...",
        )
    total = sum(weight for weight, _, _ in parts)
    if not total > 0:
        raise UsageError("bad-method", f"the weights of {spec!r} add up to nothing")
    return Blend(tuple((weight / total, name, make_initializer(name, own)) for weight, name, own in parts))


def described(initializer: Initializer) -> dict[str, Any]:
    """Return the settings of a method as plain data, those of a sum by its parts."""
    if isinstance(initializer, Blend):
        return {
            f"{name} ({n})" if [other for _, other, _ in initializer.parts].count(name) > 1 else name: {
                "weight": round(weight, 4),
                **described(method),
            }
            for n, (weight, name, method) in enumerate(initializer.parts, 1)
        }
    return dataclasses.asdict(initializer)  # type: ignore[call-overload,no-any-return]


def _split(spec: str) -> list[str]:
    """Cut a sum at each `+` that stands outside parentheses."""
    parts, depth = [""], 0
    for character in spec:
        depth += (character == "(") - (character == ")")
        if character == "+" and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _settings(text: str) -> dict[str, object]:
    """Read "key=value, key=value"."""
    found: dict[str, object] = {}
    for pair in filter(None, (pair.strip() for pair in text.split(","))):
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError("bad-method", f"{pair!r} is not a setting", "write key=value")
        found[key.strip()] = value.strip()
    return found
