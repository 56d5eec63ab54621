"""Sections that the pages of a transplant and of a trim share: sizes, and how the run went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokswap.report.page.charts import Bar, bars
from tokswap.report.page.parts import Block, Section, Table, key_values
from tokswap.report.page.sheet import Chart
from tokswap.report.wording import size

GROUPS_DRAWN = 12
"""Groups of tokens that a drawing shows; its table has them all."""
_STAGES = {
    "prepare": "prepare",
    "rows": "compute new rows",
    "write": "write files",
    "check": "check",
    "all": "total",
}


def sizes(plan: Mapping[str, Any]) -> Section:
    """Return the section about parameters, bytes and vocabulary matrices."""
    tied = " (tied to lm_head)" if plan["tied"] else ""
    rows = [
        (
            matrix["role"] + (tied if matrix["role"] == "input" else ""),
            "new" if matrix["shape_before"] is None else _shape(matrix["shape_before"]),
            "dropped" if matrix["shape_after"] is None else _shape(matrix["shape_after"]),
            matrix["dtype"],
            ", ".join(matrix["names"]),
        )
        for matrix in plan["tables"]
    ]
    millions = [plan[f"parameters_{when}"] / 1e6 for when in ("before", "after")]
    weights = [plan[f"bytes_{when}"] for when in ("before", "after")]
    head = ("matrix", "before", "after", "type", "tensors")
    blocks: list[Block] = [
        before_after("Parameters", millions, [f"{value:,.1f} M" for value in millions]),
        before_after("Weights on disk", weights, [size(value) for value in weights]),
        Table("Vocabulary matrices", head, rows, code=(4,), wide=True),
    ]
    return Section("Size", blocks)


def before_after(title: str, values: list[float], texts: list[str]) -> Chart:
    """Draw one figure of the source model and of the result."""
    groups = [(name, [Bar(value, text)]) for name, value, text in zip(("before", "after"), values, texts, strict=True)]
    return bars(title, groups, highlighted=1)


def course(document: Mapping[str, Any]) -> Section:
    """Return the section about the time of the run and its settings."""
    plan = document["plan"]
    stages = sorted(document["seconds"].items(), key=lambda stage: stage[0] == "all")
    seconds = [(_STAGES.get(stage, stage), f"{value:.1f} s") for stage, value in stages]
    options = {name.replace("_", " "): value for name, value in plan["options"].items() if value is not False}
    if "memory" in options:
        options["memory"] = size(options["memory"])
    named = {"model": plan["model"], "tokenizer": plan["tokenizer"], "donor": plan["donor"], "result": plan["out"]}
    blocks: list[Block] = [
        Table("Time", ("stage", "time"), seconds, right=(1,)),
        key_values("Settings", {**named, **options}),
    ]
    return Section("The run", blocks)


def _shape(shape: list[int]) -> str:
    return " × ".join(f"{side:,}" for side in shape)
