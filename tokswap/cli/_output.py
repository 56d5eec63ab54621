"""How results look: plain text for people on a terminal, one JSON document for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tokswap.errors import TokswapError
    from tokswap.report import Plan, Report

_COVERAGE = {
    "bytes": "copied, the same bytes",
    "role": "copied, the same role",
    "text": "copied, control token of the same name",
    "preset": "copied, chat marker of the same purpose",
    "map": "copied, as --map-token says",
    "missing": "made by {method}",
    "neutral": "control tokens the model lacks, never predicted",
    "padding": "padding, never predicted",
}


def document(value: object) -> None:
    """Print one JSON document on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def error(problem: TokswapError, *, as_json: bool) -> None:
    """Print an error on stderr, and with --json as a document on stdout too."""
    if as_json:
        error_document(problem.code, problem.message, problem.where, problem.hint)
    click.echo(f"{click.style('error', fg='red', bold=True)}: {problem}", err=True)


def error_document(code: str, message: str, where: Mapping[str, str] | None = None, hint: str = "") -> None:
    """Print the JSON document that stands for an error."""
    document({"error": {"code": code, "message": message, "where": dict(where or {}), "hint": hint}})


def columns(rows: Sequence[Sequence[object]], *, right: Sequence[int] = (), indent: str = "  ") -> list[str]:
    """Lay out rows in columns; `right` names the columns that are set to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[n]) for row in cells) for n in range(len(cells[0]))] if cells else []
    return [
        (
            indent
            + "  ".join(
                cell.rjust(width) if n in right else cell.ljust(width)
                for n, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
        ).rstrip()
        for row in cells
    ]


def size(count: float) -> str:
    """Return bytes for people: 1.2 GB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}" if count < 999.5 * factor else f"{count / factor:,.0f} {unit}"
    return f"{count:.0f} bytes"


def duration(seconds: float) -> str:
    """Return a time for people: 2 min 5 s."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def plan(plan: Plan) -> list[str]:
    """Return the lines that describe a plan."""
    total = sum(plan.coverage.values())
    settings = ", ".join(f"{key}={value}" for key, value in plan.settings.items())
    lines = [f"{plan.operation}: {plan.model} -> {plan.out}", ""]
    lines += columns(
        [
            ("tokenizer", f"{plan.tokenizer} ({plan.family_after}; the model has {plan.family_before})"),
            ("method", plan.method + (f" ({settings})" if settings else "")),
            *([("donor", plan.donor)] if plan.donor else []),
            ("size", f"{size(plan.bytes_before)} -> {size(plan.bytes_after)}, {plan.parameters_before / 1e6:,.1f} M -> "
             f"{plan.parameters_after / 1e6:,.1f} M parameters"),
            ("needs", f"about {size(plan.memory_bytes)} of memory and {duration(plan.seconds)}; "
             f"writes {size(plan.bytes_written)}"),
        ]
    )  # fmt: skip
    lines += ["", f"  {total:,} rows"]
    lines += columns(
        [
            (f"{count:,}", f"{100 * count / total:.1f} %", _COVERAGE[reason].format(method=plan.method))
            for reason, count in sorted(plan.coverage.items(), key=lambda item: -item[1])
        ],
        right=(0, 1),
        indent="    ",
    )
    lines += ["", "  tables"]
    for table in plan.tables:
        before = "new" if table.shape_before is None else _shape(table.shape_before)
        after = "dropped" if table.shape_after is None else _shape(table.shape_after)
        tied = " (and output head)" if table.role == "input" and plan.tied else ""
        lines.append(f"    {table.role}{tied}: {before} -> {after} {table.dtype}  {', '.join(table.names)}")
    return [*lines, *_notes(plan.notes)]


def report(report: Report) -> list[str]:
    """Return the lines that tell what a run did, and what to do next."""
    plan, summary = report.plan, report.summary()
    seconds = report.seconds
    lines = [
        f"wrote {plan.out}: {size(plan.bytes_after)} in {duration(seconds['all'])} "
        f"(rows {duration(seconds['rows'])}, files {duration(seconds['write'])})"
    ]
    for role, named in summary["diagnostics"].items():
        for name, spread in named.items():
            if spread:
                values = "  ".join(f"{key} {value:.3g}" for key, value in spread.items())
                lines.append(f"  {role} {name.replace('_', ' ')}: {values}")
    if report.worst:
        tokens = "  ".join(f"{token!r} {residual:.2f}" for token, residual in report.worst)
        lines.append(f"  explained least (residual): {tokens}")
    return [*lines, *_notes(report.notes), "", f"next: tokswap verify {plan.out} --against {plan.model}"]


def facts(title: str, rows: Sequence[tuple[str, Any]]) -> list[str]:
    """Return a title and a list of named facts; empty facts are left out."""
    return [title, *columns([row for row in rows if row[1] not in (None, "", [])])]


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(f"{side:,}" for side in shape)


def _notes(notes: Sequence[str]) -> list[str]:
    return ["", *(f"  note: {note}" for note in notes)] if notes else []
