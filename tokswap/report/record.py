"""What a run has done: plain data, ready for JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.report.plan import Plan
from tokswap.report.result import Result
from tokswap.report.table import report_rows
from tokswap.storage.json_files import REPORT_NAME as REPORT_NAME
from tokswap.tokenizer.alignment import Alignment, Reason
from tokswap.tokenizer.vocabulary import Vocabulary

CARD_NAME = "README.md"
FORMAT = 2
"""Of tokswap.json. Format 1 had no `format` key; its keys are all here, and `read_provenance` reads both."""


@dataclass(frozen=True)
class RowReport:
    """What is known about the computed rows.

    Attributes:
        diagnostics: Role -> name -> one number per missing token, float [M], in the order of the missing ids.
        norms: Role -> "copied" and "made" -> norms of these rows, float [n].
        worst: The missing tokens with the largest residual: (token, residual).
        unusual: The missing tokens whose input rows have the most unusual norm: (token, norm, its source pieces).
    """

    diagnostics: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    norms: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    worst: tuple[tuple[str, float], ...] = ()
    unusual: tuple[tuple[str, float, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class Groups:
    """Tokens by script, or by kind where they are no normal tokens.

    Attributes:
        after: Group -> reason -> rows of the result (see `Alignment.by_group`).
        before: The same groups -> tokens of the source vocabulary.
    """

    after: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    before: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, alignment: Alignment, target: Vocabulary, source: Vocabulary) -> Groups:
        """Count the groups of a result and of its source."""
        return cls(alignment.by_group(target), dict(Counter(source.groups()).most_common()))


@dataclass(frozen=True, repr=False)
class Report(Result):
    """A Plan that was carried out, and the result.

    `model, tokenizer = report` loads the result, and so does `report.load()`.

    Attributes:
        plan: What was planned.
        alignment: Where every row came from.
        seconds: Stage -> measured time.
        checks: What was tested on the way.
        rows: What is known about the computed rows.
        notes: What the methods have to say, and what the user should know about the new rows.
        evidence: Role -> why a method chose what it did, and "healing".
        groups: Tokens by script.
        loaded: The changed model and tokenizer, where the run changed loaded objects.
        folder: Whole path of the result, None where nothing was written.
    """

    plan: Plan
    alignment: Alignment
    seconds: Mapping[str, float]
    checks: Mapping[str, Any]
    rows: RowReport = field(default_factory=RowReport)
    notes: tuple[str, ...] = ()
    evidence: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    groups: Groups = field(default_factory=Groups)
    loaded: tuple[Any, Any] | None = None
    folder: Path | None = field(init=False, default=None)

    @property
    def operation(self) -> str:
        """What the run was."""
        return self.plan.operation

    @property
    def path(self) -> Path | None:
        """Folder of the result, None where nothing was written."""
        return Path(self.plan.names.out) if self.plan.names.out else None

    def facts(self) -> Sequence[tuple[str, str]]:
        """Return the main figures by name."""
        return report_rows({**self.plan.as_dict(), "seconds_taken": self.seconds.get("all")})

    def summary(self) -> dict[str, Any]:
        """Return plain data for JSON without the per-token parts."""
        return {
            "format": FORMAT,
            "plan": self.plan.as_dict(),
            "seconds": dict(self.seconds),
            "checks": dict(self.checks),
            "diagnostics": _spread(self.rows.diagnostics),
            "worst": [list(entry) for entry in self.rows.worst],
            "notes": list(self.notes),
            "evidence": {role: dict(found) for role, found in self.evidence.items()},
            "groups": {group: dict(counts) for group, counts in self.groups.after.items()},
            "groups_before": dict(self.groups.before),
            "norms": _spread(self.rows.norms),
            "unusual": [[token, norm, list(pieces)] for token, norm, pieces in self.rows.unusual],
            "versions": versions(),
        }

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: the summary, and under "tokens" what is known of each token."""
        return {**self.summary(), "tokens": self._tokens()}

    def _tokens(self) -> dict[str, Any]:
        return {
            "reasons": {reason.key: int(reason) for reason in Reason},
            "source_of": self.alignment.source_of.tolist(),
            "reason": self.alignment.reason.tolist(),
            "diagnostics": {
                role: {name: [round(float(value), 5) for value in values] for name, values in named.items()}
                for role, named in self.rows.diagnostics.items()
            },
            "norms": {role: histogram(named) for role, named in self.rows.norms.items()},
        }

    def to_json(self) -> bytes:
        """Return the content of tokswap.json."""
        tokens = self._tokens()
        # The summary is for people; a line per token would make it unreadable.
        body = json.dumps(self.summary(), indent=2, ensure_ascii=False)
        return f'{body[:-2]},\n  "tokens": {json.dumps(tokens, separators=(",", ":"))}\n}}\n'.encode()


def versions() -> dict[str, str]:
    """Return the versions of tokswap and of the libraries that decide its results."""
    found = {}
    for name in ("tokswap", "transformers", "tokenizers", "torch", "safetensors", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def histogram(named: Mapping[str, np.ndarray], bins: int = 40) -> dict[str, list[Any]]:
    """Count the values of several arrays in the same bins.

    Returns:
        "edges" [bins + 1], and name -> counts [bins]; {} where there are no values. A few extreme values do not widen
        the bins: the last bin counts them.
    """
    values = np.concatenate([np.zeros(0), *named.values()])
    if not len(values):
        return {}
    low, high = float(values.min()), float(min(values.max(), 3 * np.percentile(values, 99)))
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    counts = {name: np.histogram(np.minimum(array, edges[-1]), edges)[0].tolist() for name, array in named.items()}
    return {"edges": [round(float(edge), 6) for edge in edges], **counts}


def _spread(values: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, dict[str, float]]]:
    return {role: {name: _quantiles(array) for name, array in named.items()} for role, named in values.items()}


def _quantiles(values: np.ndarray) -> dict[str, float]:
    if not len(values):
        return {}
    points = np.percentile(values, [0, 5, 50, 95, 100])
    named = dict(zip(("least", "5%", "median", "95%", "most"), points, strict=True))
    return {name: round(float(value), 5) for name, value in {**named, "mean": values.mean()}.items()}
