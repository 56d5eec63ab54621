"""What a user should know about rows that a method computed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tokswap.report.wording import listed
from tokswap.tokenizer.vocabulary import Vocabulary


def row_notes(
    target: Vocabulary,
    missing: np.ndarray,
    diagnostics: Mapping[str, Mapping[str, np.ndarray]],
    lengths: Mapping[str, np.ndarray],
) -> list[str]:
    """Name the made rows that stand far outside the others: large coefficients, or a great length.

    A donor can be prepared so that a token looks harmless there and breaks the model that takes it over
    (arXiv 2601.00065); it shows in the coefficients. missing: int64[M]. diagnostics: table role -> name -> float[M], as
    methods leave them. lengths: table role -> float[M].
    """
    notes = []
    for role, named in diagnostics.items():
        for what, values in (("coefficients", named.get("coefficient_norm")), ("rows", lengths.get(role))):
            far = outliers(values) if values is not None and len(values) == len(missing) else np.zeros(0, np.int64)
            if not len(far):
                continue
            assert values is not None
            typical = float(np.median(values))
            some = [f"{target.readable(int(missing[n]))} ({values[n] / typical:.0f} times the median)" for n in far]
            hint = "; do not trust the donor without looking at them" if what == "coefficients" else ""
            notes.append(f"{len(far):,} {role} {what} are far larger than the others: {listed(some)}{hint}")
    return notes


def outliers(values: np.ndarray) -> np.ndarray:
    """Return the places of values far above the others, largest first.

    Far is more than 8 robust standard deviations of the logarithms above their median, and more than 4 times it.
    Fewer than 20 values have no spread to speak of.
    """
    if len(values) < 20:
        return np.zeros(0, np.int64)
    logs = np.log(np.maximum(values.astype(np.float64), 1e-12))
    middle = np.median(logs)
    spread = 1.4826 * float(np.median(np.abs(logs - middle)))
    far = np.flatnonzero(logs > middle + max(8 * spread, np.log(4)))
    return far[np.argsort(-logs[far], kind="stable")]
