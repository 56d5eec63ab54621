"""A report in a few lines: for the `repr` of a result and for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tokswap.report.wording import duration, size


def report_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (name, value) rows from a plan as plain data, with `seconds_taken` of the run where it is known."""
    coverage = facts["coverage"]
    total = sum(coverage.values())
    new = coverage.get("missing", 0)
    before = max((matrix["shape_before"] or (0,))[0] for matrix in facts["tables"])
    rows = [("model", str(facts["model"]))]
    if facts["operation"] != "trim":
        rows += [("tokenizer", str(facts["tokenizer"])), ("method", str(facts["method"]))]
    rows += [
        ("rows", f"{before:,} -> {total:,} ({new:,} initialised)"),
        ("parameters", f"{facts['parameters_before'] / 1e6:,.1f} M -> {facts['parameters_after'] / 1e6:,.1f} M"),
        ("weights", f"{size(facts['bytes_before'])} -> {size(facts['bytes_after'])}"),
    ]
    if facts.get("seconds_taken") is not None:
        rows.append(("time", duration(facts["seconds_taken"])))
    return [*rows, ("path", str(facts["out"] or "in memory"))]


def html_table(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """Return rows as an HTML table."""
    body = "".join(f"<tr><th style='text-align:left'>{escape(a)}</th><td>{escape(b)}</td></tr>" for a, b in rows)
    return f"<table><caption>{escape(title)}</caption>{body}</table>"
