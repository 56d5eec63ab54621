"""How results look: plain text for people on a terminal, one JSON document for programs."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tokswap.draft.engines import Verdict
    from tokswap.errors import TokswapError
    from tokswap.evaluation.checks import Check


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


def _engines(found: Sequence[Verdict]) -> list[str]:
    """Return the lines that say which inference engines would take a draft, and why not."""
    lines = ["", "as a draft, by the rules of each inference engine (none was run)"]
    width = max(len(one.engine) for one in found)
    for one in found:
        by = f" ({'tried on' if one.tried else 'not tried; by'} {one.release})" if one.release else ""
        lines.append(f"  {'ok  ' if one.ok else 'FAIL'}  {one.engine:{width}}  {one.rule}{by}")
        lines += [f"        {'':{width}}  - {reason}" for reason in one.reasons]
        lines += [f"        {'':{width}}  note: {note}" for note in one.notes]
    return lines


def piece(text: str) -> None:
    """Print a piece of a text as soon as it is written."""
    click.echo(text, nl=False)
    sys.stdout.flush()


def speed(count: int, unit: str, seconds: float) -> str:
    """Return how much was written, and how fast."""
    return f"({count} {unit} in {seconds:.1f} s, {count / seconds:.1f} per second)"


def facts(title: str, rows: Sequence[tuple[str, Any]]) -> list[str]:
    """Return a title and a list of named facts; empty facts are left out."""
    return [title, *columns([row for row in rows if row[1] not in (None, "", [])])]


def checks(checks: Sequence[Check], as_json: bool, quiet: bool, verdicts: Sequence[Verdict] = ()) -> None:
    """Print checks and verdicts, one a line; exit with 1 where one fails. quiet: print only what fails."""
    failed, refused = [check for check in checks if not check.ok], [one for one in verdicts if not one.ok]
    if as_json:
        found: dict[str, Any] = {
            "ok": not failed and not refused,
            "checks": [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in checks],
        }
        document(found | ({"engines": [one.as_dict() for one in verdicts]} if verdicts else {}))
    else:
        shown, told = (failed, refused) if quiet else (checks, verdicts)
        lines = columns([("ok" if check.ok else "FAIL", check.name, check.detail) for check in shown])
        lines.append(f"{len(checks) - len(failed)} of {len(checks)} checks hold")
        click.echo("\n".join([*lines, *(_engines(told) if told else [])]))
    if failed or refused:
        raise SystemExit(1)


def next_command(*words: str) -> str:
    """Return the line that suggests a command, which a shell reads as it is meant: names may have spaces."""
    return f"next: {shlex.join(['tokswap', *words])}"


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape for people: 49,152 x 576."""
    return " x ".join(f"{side:,}" for side in shape)


def note_lines(notes: Sequence[str]) -> list[str]:
    """Return notes as lines."""
    return ["", *(f"  note: {note}" for note in notes)] if notes else []
