"""What a run will do (Plan) and what it did (Report): plain data, ready for JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.errors import InputError
from tokswap.storage.json_files import read_json
from tokswap.tokenizer.alignment import Alignment, Reason

REPORT_NAME = "tokswap.json"


@dataclass(frozen=True)
class MatrixPlan:
    """One table before and after. shape_before is None for a table that the source does not have."""

    names: tuple[str, ...]
    role: str
    dtype: str
    shape_before: tuple[int, ...] | None
    shape_after: tuple[int, ...] | None


@dataclass(frozen=True)
class Plan:
    """Everything that a run will do, known before a weight is read. `--dry-run` prints it.

    settings: of the method. output_method: another one for the output head. options: of the run. coverage: reason -> rows of the result. bytes_written: new bytes on disk; memory_bytes and seconds are estimates.
    notes: what a user should know before it runs.
    """

    operation: str
    model: str
    tokenizer: str
    donor: str | None
    out: str
    family_before: str
    family_after: str
    method: str
    settings: Mapping[str, object]
    options: Mapping[str, object]
    coverage: Mapping[str, int]
    matrices: tuple[MatrixPlan, ...]
    parameters_before: int
    parameters_after: int
    bytes_before: int
    bytes_after: int
    bytes_written: int
    memory_bytes: int
    seconds: float
    tied: bool
    bos_added: bool
    notes: tuple[str, ...] = ()
    output_method: str | None = None
    output_settings: Mapping[str, object] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        plain = asdict(self)
        plain["tables"] = plain.pop("matrices")
        return plain


@dataclass(frozen=True)
class Report:
    """A Plan that was carried out.

    seconds: stage -> measured time. checks: what was tested on the way. diagnostics: table role -> name -> one
    number a missing token, in the order of the missing ids. worst: the missing tokens with the largest residual.
    notes: what the methods have to say, and what a user should know about the rows that were made. evidence: table
    role -> what a choice of method rests on, and "calibration". calibrated: tensors of which every row was changed.
    groups: script, or kind of what is no normal token -> reason -> rows of the result (see `Alignment.by_group`).
    groups_before: the same groups -> tokens of the source's vocabulary. norms: table role -> "copied", "made" -> the
    lengths of these rows, float[n], before a calibration. unusual: the missing tokens whose input rows are farthest from
    the usual length: (token, length, its pieces in the source).
    """

    plan: Plan
    alignment: Alignment
    seconds: Mapping[str, float]
    checks: Mapping[str, Any]
    diagnostics: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    worst: tuple[tuple[str, float], ...] = ()
    notes: tuple[str, ...] = ()
    evidence: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    calibrated: tuple[str, ...] = ()
    groups: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    groups_before: Mapping[str, int] = field(default_factory=dict)
    norms: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    unusual: tuple[tuple[str, float, tuple[str, ...]], ...] = ()

    def summary(self) -> dict[str, Any]:
        """Return plain data for JSON without the per-token parts."""
        return {
            "plan": self.plan.as_dict(),
            "seconds": dict(self.seconds),
            "checks": dict(self.checks),
            "diagnostics": _spread(self.diagnostics),
            "worst": [list(entry) for entry in self.worst],
            "notes": list(self.notes),
            "evidence": {role: dict(found) for role, found in self.evidence.items()},
            "calibrated": list(self.calibrated),
            "groups": {group: dict(counts) for group, counts in self.groups.items()},
            "groups_before": dict(self.groups_before),
            "norms": _spread(self.norms),
            "unusual": [[token, length, list(pieces)] for token, length, pieces in self.unusual],
            "versions": versions(),
        }

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: the summary, and under "tokens" a number a token for each thing that is known of it."""
        return {**self.summary(), "tokens": self._tokens()}

    def _tokens(self) -> dict[str, Any]:
        return {
            "reasons": {reason.name.lower(): int(reason) for reason in Reason},
            "source_of": self.alignment.source_of.tolist(),
            "reason": self.alignment.reason.tolist(),
            "diagnostics": {
                role: {name: [round(float(value), 5) for value in values] for name, values in named.items()}
                for role, named in self.diagnostics.items()
            },
            "norms": {role: histogram(named) for role, named in self.norms.items()},
        }

    def to_json(self) -> bytes:
        """Return the whole report as it stands beside the weights."""
        tokens = self._tokens()
        # The summary is for people; a line a token would make it unreadable.
        body = json.dumps(self.summary(), indent=2, ensure_ascii=False)
        return f'{body[:-2]},\n  "tokens": {json.dumps(tokens, separators=(",", ":"))}\n}}\n'.encode()


@dataclass(frozen=True)
class Origin:
    """Where the rows of a result came from, as its tokswap.json tells; empty arrays for a checkpoint of unknown make.

    source_of: int64[V], -1 for a row that was made. reason: uint8[V], see `Reason`. calibrated: the tensors whose
    rows were all changed after they had been copied or made.
    """

    source_of: np.ndarray
    reason: np.ndarray
    calibrated: tuple[str, ...] = ()


def read_origin(folder: Path) -> Origin:
    """Read where the rows of a model folder came from. Raises InputError bad-report."""
    path = folder / REPORT_NAME
    try:
        whole = read_json(path, "report") if path.is_file() else {}
        tokens, calibrated = whole.get("tokens", {}), tuple(map(str, whole.get("calibrated", [])))
        source_of = np.array(tokens.get("source_of", []), np.int64)
        reason = np.array(tokens.get("reason", [Reason.MISSING] * len(source_of)), np.uint8)
    except (AttributeError, ValueError, TypeError, OverflowError) as error:
        raise InputError("bad-report", f"its list of tokens is damaged: {error}", file=path) from error
    if source_of.ndim != 1 or source_of.shape != reason.shape:
        raise InputError("bad-report", "its list of tokens is damaged", file=path)
    return Origin(source_of, reason, calibrated)


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
    """Count the values of several arrays in the same bins; {} where there are none.

    Returns "edges" [bins + 1], and name -> counts [bins]. A few wild values do not widen the bins: the last one takes them.
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
