"""Where the rows of a written result came from, as its tokswap.json says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.errors import InputError
from tokswap.report.record import REPORT_NAME
from tokswap.storage.json_files import read_json


@dataclass(frozen=True)
class Provenance:
    """Where the rows of a result came from; empty for a checkpoint without tokswap.json.

    Attributes:
        source_of: Source row of each row, int64 [V]; -1 for a computed row.
        reason: Why, uint8 [V]; see `reasons`.
        reasons: Name of a reason -> its number.
        healed: The tensors that were trained afterwards.
        plan: What was planned, as plain data.
    """

    source_of: np.ndarray
    reason: np.ndarray
    reasons: Mapping[str, int] = field(default_factory=dict)
    healed: tuple[str, ...] = ()
    plan: Mapping[str, Any] = field(default_factory=dict)

    def has_reason(self, name: str) -> np.ndarray:
        """Return which rows have a reason (bool [V])."""
        return np.asarray(self.reason == self.reasons.get(name, -1))

    @property
    def never_predicted(self) -> np.ndarray:
        """Which rows of lm_head are neutral, padding rows left out (bool [V])."""
        names = ["neutral", "unreachable", *["missing"] * proposes_copied(self.plan.get("options", {}))]
        return np.isin(self.reason, [self.reasons[name] for name in names if name in self.reasons])


def proposes_copied(options: Mapping[str, Any]) -> bool:
    """Whether a plan with these options makes a draft that proposes no initialised token."""
    return options.get("propose") == "copied"


def read_provenance(folder: Path) -> Provenance:
    """Read where the rows of a model folder came from. Raises InputError bad-report."""
    path = folder / REPORT_NAME
    try:
        whole = read_json(path, "report") if path.is_file() else {}
        tokens = whole.get("tokens", {})
        source_of = np.array(tokens.get("source_of", []), np.int64)
        reason = np.array(tokens.get("reason", [0] * len(source_of)), np.uint8)
        healed = tuple(map(str, whole.get("healed", [])))
        reasons, plan = dict(tokens.get("reasons", {})), dict(whole.get("plan", {}))
    except (AttributeError, ValueError, TypeError, OverflowError) as error:
        raise InputError("bad-report", f"its list of tokens is damaged: {error}", file=path) from error
    if source_of.ndim != 1 or source_of.shape != reason.shape:
        raise InputError("bad-report", "its list of tokens is damaged", file=path)
    return Provenance(source_of, reason, reasons=reasons, healed=healed, plan=plan)
