"""How results look: plain text for people on a terminal, one JSON document for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from tokswap.report.wording import COVERAGE, KEPT, duration, size

if TYPE_CHECKING:
    from tokswap.draft.engines import Verdict
    from tokswap.errors import TokswapError
    from tokswap.evaluation.verify import Check
    from tokswap.report.record import Plan, Report
    from tokswap.trim.plan import TrimPlan


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


def plan(plan: Plan) -> list[str]:
    """Return the lines that describe a plan."""
    total = sum(plan.coverage.values())
    # The settings of a sum of methods stand in its name already.
    settings = ", ".join(f"{key}={value}" for key, value in plan.settings.items() if not isinstance(value, dict))
    lines = [f"{plan.operation}: {plan.model} -> {plan.out}", ""]
    lines += columns(
        [
            ("tokenizer", f"{plan.tokenizer} ({plan.family_after}; the model has {plan.family_before})"),
            ("method", plan.method + (f" ({settings})" if settings else "")),
            *([("for the head", plan.output_method)] if plan.output_method else []),
            *([("donor", plan.donor)] if plan.donor else []),
            (
                "size",
                f"{size(plan.bytes_before)} -> {size(plan.bytes_after)}, {plan.parameters_before / 1e6:,.1f} M -> "
                f"{plan.parameters_after / 1e6:,.1f} M parameters",
            ),
            (
                "needs",
                f"about {size(plan.memory_bytes)} of memory and {duration(plan.seconds)}; "
                f"writes {size(plan.bytes_written)}",
            ),
        ]
    )
    lines += ["", f"  {total:,} rows"]
    lines += columns(
        [
            (f"{count:,}", f"{100 * count / total:.1f} %", COVERAGE[reason].format(method=plan.method))
            for reason, count in sorted(plan.coverage.items(), key=lambda item: -item[1])
        ],
        right=(0, 1),
        indent="    ",
    )
    lines += ["", "  tables"]
    for table in plan.matrices:
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
    for role, found in report.evidence.items():
        lines += _evidence(role, found)
    if report.worst:
        tokens = "  ".join(f"{token} {residual:.2f}" for token, residual in report.worst)
        lines.append(f"  explained least (residual): {tokens}")
    more = f" --draft-for {plan.tokenizer}" if plan.operation == "draft" else ""
    return [*lines, *_notes(report.notes), "", f"next: tokswap verify {plan.out} --against {plan.model}{more}"]


def _evidence(role: str, found: Mapping[str, Any]) -> list[str]:
    """Why a method was chosen, or what a calibration did."""
    if role == "calibration":
        before, after = found["held_out_bits_per_byte"]
        return [
            f"  calibration: {found['rows_fitted']:,} rows and a map fitted to {found['tokens']:,} tokens in "
            f"{duration(found['seconds'])}; what was held out costs {after:.3f} bits per byte, {before:.3f} before"
        ]
    lines = []
    if "candidates" in found:
        measure = "bits_per_byte" if role == "text" else "error"
        basis = "the text, bits per byte" if role == "text" else f"{found['hidden']:,} hidden shared tokens, mean error"
        best = found["chosen"]["all"]
        lines.append(f"  {'all tables' if role == 'text' else role}: method chosen by {basis}")
        rows = [
            (f"{one[measure]:.4f}", one["method"] + (" (chosen)" * (one["method"] == best)))
            for one in sorted(found["candidates"], key=lambda one: float(one[measure]))
        ]
        lines += columns(rows, right=(0,), indent="    ")
    others = [f"{kind} by {name}" for kind, name in found["chosen"].items() if kind != "all"]
    return lines + ([f"    but {', '.join(others)}"] if others else [])


def _engines(found: Sequence[Verdict]) -> list[str]:
    """Return the lines that say which engines would take a draft, and why not."""
    lines = ["", "as a draft, by the engines' own rules (no engine was run)"]
    width = max(len(one.engine) for one in found)
    for one in found:
        lines.append(f"  {'ok  ' if one.ok else 'FAIL'}  {one.engine:{width}}  {one.rule}")
        lines += [f"        {'':{width}}  - {reason}" for reason in one.reasons]
    return lines


def facts(title: str, rows: Sequence[tuple[str, Any]]) -> list[str]:
    """Return a title and a list of named facts; empty facts are left out."""
    return [title, *columns([row for row in rows if row[1] not in (None, "", [])])]


def checks(checks: Sequence[Check], as_json: bool, quiet: bool, verdicts: Sequence[Verdict] = ()) -> None:
    """Print checks and what engines say, a line each, only what fails where it is to be quiet; exits with 1 then."""
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


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(f"{side:,}" for side in shape)


def _notes(notes: Sequence[str]) -> list[str]:
    return ["", *(f"  note: {note}" for note in notes)] if notes else []


# Trims.


def trim_plan(plan: TrimPlan) -> list[str]:
    """Return the lines that describe the plan of a trim."""
    total = sum(plan.coverage.values())
    before = plan.matrices[0].shape_before
    lines = [f"trim: {plan.model} -> {plan.out}", ""]
    lines += columns(
        [
            ("tokenizer", plan.family_after),
            (
                "size",
                f"{size(plan.bytes_before)} -> {size(plan.bytes_after)}, {plan.parameters_before / 1e6:,.1f} M -> "
                f"{plan.parameters_after / 1e6:,.1f} M parameters",
            ),
            ("needs", f"about {size(plan.memory_bytes)} of memory; writes {size(plan.bytes_written)}"),
        ]
    )
    for facts in plan.corpora:
        once = "" if facts.once is None else f"; a new text may need others for {100 * facts.once:.2g} % of its tokens"
        lines.append(
            f"  {facts.name}: {size(facts.bytes)}, {facts.distinct:,} different tokens, "
            f"{100 * facts.kept:.4g} % of its tokens kept{once}"
        )
    lines += ["", f"  {max(before or (0,)):,} rows -> {total:,} ({100 * total / max(before or (1,)):.1f} %)"]
    lines += columns(
        [(f"{count:,}", KEPT[reason]) for reason, count in sorted(plan.coverage.items(), key=lambda item: -item[1])],
        right=(0,),
        indent="    ",
    )
    return [*lines, *_notes(plan.notes)]


def trim_report(report: Report) -> list[str]:
    """Return the lines that tell what a trim did and what was measured on the result."""
    plan, checks = report.plan, report.checks
    saved = plan.parameters_before - plan.parameters_after
    lines = [
        f"wrote {plan.out}: {size(plan.bytes_after)} in {duration(report.seconds['all'])}",
        f"  saved: {saved / 1e6:,.1f} M of {plan.parameters_before / 1e6:,.1f} M parameters, "
        f"{size(plan.bytes_before - plan.bytes_after)} of {size(plan.bytes_before)}",
    ]
    for key, name in (("corpus", "the text"), ("held_out", "held-out text")):
        if key in checks:
            found = checks[key]
            per_byte = " -> ".join(f"{value:.4f}" for value in found["tokens_per_byte"])
            lines.append(
                f"  {name}: {100 * found['tokens_kept']:.4g} % of its tokens kept; {found['exact']:,} of {found['kept']:,} pieces "
                f"of kept tokens exact ({found['pieces']:,} in all); tokens a byte {per_byte}; unknown {_shares(found['unknown'])}; bytes {_shares(found['byte_fallback'])}"
            )
    loaded = checks["reloaded"]
    lines.append(
        f"  AutoTokenizer: {loaded['exact']:,} of {loaded['pieces']:,} pieces exact"
        + (
            f"; chat template: {loaded['chats_equal']} of {loaded['chats']} conversations equal"
            if loaded["chats"]
            else ""
        )
    )
    lines.append(f"  tokens that no text is cut into: {checks['unreachable'][0]:,} -> {checks['unreachable'][1]:,}")
    if "model" in checks:
        model = checks["model"]
        equal = "bit-equal" if model["hidden_states_equal"] else "NOT equal"
        line = f"  model: hidden states {equal} over {model['tokens']:,} tokens"
        if "logit_difference" in model:
            line += (
                f"; logits differ by {model['logit_difference']:.2g} at most; removed tokens had "
                f"{100 * model['removed_mass']:.2g} % of the probability; same likeliest token {100 * model['argmax_agreement']:.4g} %"
            )
        lines.append(line)
    lines += [f"  FAILED: {problem}" for problem in checks["failed"]]
    return [*lines, "", f"next: tokswap verify {plan.out} --against {plan.model}"]


def adapter(done: Mapping[str, Any]) -> list[str]:
    """Return the lines that tell which tensors of an adapter have followed a trim."""
    rows = [(name, f"{_shape(before)} -> {_shape(after)}") for name, (before, after) in done["remapped"].items()]
    return [f"{done['out']}: {len(rows)} of {done['tensors']} tensors follow the vocabulary", *columns(rows)]


def _shares(values: Sequence[float]) -> str:
    return " -> ".join(f"{100 * value:.2g} %" for value in values)
