"""What the pages of a transplant and of a trim have in common: the sizes, and how the run went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokswap.report.page.charts import Bar, Chart, bars
from tokswap.report.page.parts import Section, Table, key_values
from tokswap.report.wording import size

GROUPS_DRAWN = 12
_STAGES = {
    "prepare": "prepare",
    "rows": "make the rows",
    "calibrate": "calibrate",
    "write": "write the files",
    "check": "check",
    "all": "in all",
}


def sizes(plan: Mapping[str, Any]) -> Section:
    """Say what became smaller or larger."""
    tied = " (and output head)" if plan["tied"] else ""
    rows = [
        (
            table["role"] + (tied if table["role"] == "input" else ""),
            "new" if table["shape_before"] is None else _shape(table["shape_before"]),
            "dropped" if table["shape_after"] is None else _shape(table["shape_after"]),
            table["dtype"],
            ", ".join(table["names"]),
        )
        for table in plan["tables"]
    ]
    millions = [plan[f"parameters_{when}"] / 1e6 for when in ("before", "after")]
    weights = [plan[f"bytes_{when}"] for when in ("before", "after")]
    return Section(
        "Size",
        [
            before_after("Parameters", millions, [f"{value:,.1f} M" for value in millions]),
            before_after("Weights on disk", weights, [size(value) for value in weights]),
            Table("Vocabulary tables", ("table", "before", "after", "type", "tensors"), rows, code=(4,), wide=True),
        ],
    )


def before_after(title: str, values: list[float], texts: list[str]) -> Chart:
    """Draw one figure of the source and of the result."""
    groups = [(name, [Bar(value, text)]) for name, value, text in zip(("before", "after"), values, texts, strict=True)]
    return bars(title, groups, highlighted=1)


def course(document: Mapping[str, Any]) -> Section:
    """Say how long the run took and with which settings."""
    plan = document["plan"]
    stages = sorted(document["seconds"].items(), key=lambda stage: stage[0] == "all")
    seconds = [(_STAGES.get(stage, stage), f"{value:.1f} s") for stage, value in stages]
    options = {name.replace("_", " "): value for name, value in plan["options"].items() if value is not False}
    if "memory" in options:
        options["memory"] = size(options["memory"])
    blocks = [
        Table("Time", ("stage", "time"), seconds, right=(1,)),
        key_values(
            "Settings",
            {
                "model": plan["model"],
                "tokenizer": plan["tokenizer"],
                "donor": plan["donor"],
                "result": plan["out"],
                **options,
            },
        ),
    ]
    return Section("The run", blocks)


def _shape(shape: list[int]) -> str:
    return " × ".join(f"{side:,}" for side in shape)
