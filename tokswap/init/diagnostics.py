"""What a user should know about rows that a method computed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tokswap.init.solver import RowTask, SolvedGroup
from tokswap.report.record import RowReport
from tokswap.report.wording import listed
from tokswap.tokenizer.vocabulary import Vocabulary

_NAMED = 10
"""Tokens that a report names of each kind."""
_USUAL = 0.05
"""A row is usual whose norm differs from the median by no more than this share."""


def row_notes(target: Vocabulary, missing: np.ndarray, solved: Mapping[str, SolvedGroup]) -> list[str]:
    """Name the computed rows that stand far outside the others: large coefficients, or a large norm.

    A donor can be prepared so that a token looks harmless there and breaks the model that adopts it; it shows in the
    coefficients.

    Args:
        target: The target vocabulary.
        missing: Ids of the missing tokens, int64 [M].
        solved: What the methods said, by role.

    Reference:
        arXiv 2601.00065.
    """
    notes = []
    for role, group in solved.items():
        for what, values in (
            ("coefficients", group.result.diagnostics.get("coefficient_norm")),
            ("rows", group.norms),
        ):
            if values is None or len(values) != len(missing):
                continue
            far = outliers(values)
            if not len(far):
                continue
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


def row_report(task: RowTask, solved: Mapping[str, SolvedGroup]) -> RowReport:
    """Return what is known about the rows that a solver has computed, for the Report."""
    return RowReport(
        diagnostics={role: group.result.diagnostics for role, group in solved.items()},
        norms={role: {"copied": group.copied_norms, "made": group.norms} for role, group in solved.items()},
        worst=_worst(task, solved),
        unusual=_unusual(task, solved),
    )


def _worst(task: RowTask, solved: Mapping[str, SolvedGroup]) -> tuple[tuple[str, float], ...]:
    """The missing tokens whose input rows the method explains least."""
    residual = solved["input"].result.diagnostics.get("residual") if "input" in solved else None
    if residual is None:
        return ()
    order = np.argsort(-residual, kind="stable")[:_NAMED]
    texts = [task.target.vocabulary.readable(token) for token in task.alignment.missing[order].tolist()]
    return tuple((text, round(float(residual[n]), 4)) for text, n in zip(texts, order, strict=True))


def _unusual(task: RowTask, solved: Mapping[str, SolvedGroup]) -> tuple[tuple[str, float, tuple[str, ...]], ...]:
    """The missing tokens whose input rows have the most unusual norm: (token, norm, its source pieces)."""
    norms = solved["input"].norms.astype(np.float64) if "input" in solved else np.zeros(0)
    if not len(norms):
        return ()
    far = np.abs(np.log(np.maximum(norms, 1e-12) / max(float(np.median(norms)), 1e-12)))
    order = [n for n in np.argsort(-far, kind="stable")[:_NAMED].tolist() if far[n] > _USUAL]
    source, target = task.source.tokenizer, task.target.vocabulary
    tokens = task.alignment.missing[order].tolist()
    pieces = source.tokenize_bytes([target.token_bytes[token] for token in tokens])
    return tuple(
        (target.readable(token), round(float(norms[n]), 4), tuple(map(source.vocabulary.readable, own)))
        for n, token, own in zip(order, tokens, pieces, strict=True)
    )
