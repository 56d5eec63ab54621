"""What a draft is worth: tokens per run of the target, beside another row, with an interval over the prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

KINDS = {"English": "en", "code": "code", "German": "de"}
ALONE, UNIVERSAL = "target alone", "universal assisted generation"
RESAMPLES = 4000


@dataclass(frozen=True)
class Run:
    """What was generated after one prompt: its ids, and tokens proposed and accepted in calls of the target."""

    ids: Sequence[int]
    proposed: int
    accepted: int
    calls: int


def figures(runs: Sequence[Run], seconds: float) -> dict[str, Any]:
    """Return the figures of one kind of text, which took processor seconds."""
    tokens = [len(one.ids) for one in runs]
    proposed, accepted = (sum(getattr(one, name) for one in runs) for name in ("proposed", "accepted"))
    return {
        "accepted": round(accepted / max(proposed, 1), 4),
        "tokens_per_target_call": round(sum(tokens) / sum(one.calls for one in runs), 3),
        "proposed": proposed,
        "tokens": sum(tokens),
        "tokens_per_cpu_second": round(sum(tokens) / seconds, 2),
        "by_prompt": [[count, one.calls] for count, one in zip(tokens, runs, strict=True)],
        "texts": [digest(one.ids) for one in runs],
    }


def extra_relative(one: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> tuple[float, list[float]]:
    """Compare the extra tokens per call of the target of two rows, as (tokens, calls) by prompt.

    Returns:
        Their ratio, and its 95 % interval by bootstrap over the prompts.
    """
    both = np.array([one, other], dtype=np.float64)  # [2, prompts, 2]

    def ratio(chosen: np.ndarray) -> float:
        tokens, calls = both[:, chosen].sum(1).T
        extra = tokens / calls - 1
        return float(extra[0] / max(extra[1], 1e-9))

    count = both.shape[1]
    draws = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    return ratio(np.arange(count)), np.quantile([ratio(one) for one in draws], [0.025, 0.975]).tolist()


def digest(ids: Sequence[int]) -> str:
    """Return a short name of a generated text, to compare texts by."""
    return hashlib.sha256(str(list(ids)).encode()).hexdigest()[:12]


def finished(rows: Mapping[str, Any], beside: str = UNIVERSAL) -> dict[str, Any]:
    """Compare the rows of an engine: extra tokens relative to the row `beside`, speed to the target alone."""
    result: dict[str, Any] = {}
    for name, found in rows.items():
        result[name] = {}
        for kind, one in found.items():
            own = dict(one)
            alone, usual = (rows.get(other, {}).get(kind) for other in (ALONE, beside))
            if usual and name != ALONE:
                extra, interval = extra_relative(one["by_prompt"], usual["by_prompt"])
                own["extra_tokens_relative"] = round(extra, 3)
                own["extra_tokens_interval"] = [round(end, 2) for end in interval]
            if alone:
                own["speed_relative"] = round(one["tokens_per_cpu_second"] / alone["tokens_per_cpu_second"], 3)
                own["texts_equal"] = sum(a == b for a, b in zip(one["texts"], alone["texts"], strict=True))
            result[name][kind] = own
    return result


def table(engine: str, rows: Mapping[str, Any]) -> list[str]:
    """Return the figures of an engine as a Markdown table."""
    lines = [f"| {engine} | {' | '.join(KINDS)} |", "| --- |" + " --- |" * len(KINDS)]
    for name, found in rows.items():
        cells = []
        for one in found.values():
            relative = f" {one['extra_tokens_relative']:.2f}x;" if "extra_tokens_relative" in one else ""
            figures = f"{one['accepted']:.3f}; {one['tokens_per_target_call']:.2f};{relative}"
            cells.append(f"{figures} {one['tokens_per_cpu_second']:.1f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines
