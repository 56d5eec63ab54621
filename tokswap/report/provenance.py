"""Where the rows of a written result came from, as its tokswap.json says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tokswap.errors import InputError
from tokswap.report.record import REPORT_NAME
from tokswap.storage.json_files import read_json
from tokswap.tokenizer.alignment import Reason


@dataclass(frozen=True)
class Provenance:
    """Where the rows of a result came from; empty arrays for a checkpoint without tokswap.json.

    Attributes:
        source_of: Source row of each row, int64 [V]; -1 for a computed row.
        reason: Why, uint8 [V]; see `Reason`.
        calibrated: The tensors whose rows were all changed after they had been copied or computed.
    """

    source_of: np.ndarray
    reason: np.ndarray
    calibrated: tuple[str, ...] = ()


def read_provenance(folder: Path) -> Provenance:
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
    return Provenance(source_of, reason, calibrated)
