"""How plans and reports of transplants and drafts look on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tokswap.cli._heal_text import step_lines
from tokswap.cli._output import columns, next_command, note_lines, shape_text
from tokswap.errors import count_of
from tokswap.report.wording import COVERAGE, duration, size

if TYPE_CHECKING:
    from tokswap.report.plan import Plan, Sizes
    from tokswap.report.record import Report


def plan_lines(plan: Plan) -> list[str]:
    """Return the lines that describe a plan."""
    names, request, change = plan.names, plan.request, plan.change
    # The settings of a sum of methods stand in its name already.
    settings = ", ".join(f"{key}={value}" for key, value in request.settings.items() if not isinstance(value, dict))
    families = f"{names.tokenizer} ({change.family_after}; the model has {change.family_before})"
    if names.tokenizer == names.model:
        families = change.family_after
    rows = [("tokenizer", families), ("method", request.method + (f" ({settings})" if settings else ""))]
    rows += [("lm_head", request.output_method)] if request.output_method else []
    rows += [("donor", names.donor)] if names.donor else []
    needs = f"about {size(plan.estimate.memory_bytes)} of memory and {duration(plan.estimate.seconds)}"
    rows += [("size", sizes_text(plan.sizes)), ("needs", f"{needs}; writes {size(plan.sizes.bytes_written)}")]
    return [
        f"{plan.operation}: {names.model} -> {names.out or 'in memory'}",
        "",
        *columns(rows),
        *_coverage(plan),
        *_matrices(plan),
        *note_lines(plan.notes),
    ]


def sizes_text(sizes: Sizes) -> str:
    """Return sizes before and after."""
    parameters = f"{sizes.parameters_before / 1e6:,.1f} M -> {sizes.parameters_after / 1e6:,.1f} M parameters"
    return f"{size(sizes.bytes_before)} -> {size(sizes.bytes_after)}, {parameters}"


def _coverage(plan: Plan) -> list[str]:
    total = sum(plan.coverage.values())
    rows = [
        (f"{count:,}", f"{100 * count / total:.1f} %", COVERAGE[reason].format(method=plan.request.method))
        for reason, count in sorted(plan.coverage.items(), key=lambda item: -item[1])
    ]
    return ["", f"  {count_of(total, 'row')}", *columns(rows, right=(0, 1), indent="    ")]


def _matrices(plan: Plan) -> list[str]:
    lines = ["", "  vocabulary matrices"]
    for matrix in plan.matrices:
        before = "new" if matrix.shape_before is None else shape_text(matrix.shape_before)
        after = "dropped" if matrix.shape_after is None else shape_text(matrix.shape_after)
        tied = " (tied to lm_head)" if matrix.role == "input" and plan.change.tied else ""
        lines.append(f"    {matrix.role}{tied}: {before} -> {after} {matrix.dtype}  {', '.join(matrix.names)}")
    return lines


def report_lines(report: Report) -> list[str]:
    """Return the lines that tell what a run did, and what to do next."""
    plan, seconds = report.plan, report.seconds
    out = plan.names.out
    lines = [
        f"wrote {out}: {size(plan.sizes.bytes_after)} in {duration(seconds['all'])} "
        f"(rows {duration(seconds['rows'])}, files {duration(seconds['write'])})"
    ]
    for role, named in report.summary()["diagnostics"].items():
        for name, spread in named.items():
            if spread:
                values = "  ".join(f"{key} {value:.3g}" for key, value in spread.items())
                lines.append(f"  {role} {name.replace('_', ' ')}: {values}")
    for role, found in report.evidence.items():
        lines += step_lines(found) if role == "healing" else _choice(role, found)
    if report.rows.worst:
        tokens = "  ".join(f"{token} {residual:.2f}" for token, residual in report.rows.worst)
        lines.append(f"  explained least (residual): {tokens}")
    more = ["--draft-for", plan.names.tokenizer] if plan.operation == "draft" else []
    following = next_command("verify", out, "--against", plan.names.model, *more)
    return [*lines, *note_lines(report.notes), "", following]


def _choice(role: str, found: Mapping[str, Any]) -> list[str]:
    """Why a method was chosen."""
    lines = []
    if "candidates" in found:
        best = found["chosen"]["all"]
        lines.append(f"  {role}: method chosen by {count_of(found['hidden'], 'hidden shared token')}, mean error")
        rows = [
            (f"{one['error']:.4f}", one["method"] + (" (chosen)" * (one["method"] == best)))
            for one in sorted(found["candidates"], key=lambda one: float(one["error"]))
        ]
        lines += columns(rows, right=(0,), indent="    ")
    others = [f"{kind} by {name}" for kind, name in found["chosen"].items() if kind != "all"]
    return lines + ([f"    but {', '.join(others)}"] if others else [])
