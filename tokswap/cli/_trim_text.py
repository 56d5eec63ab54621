"""How plans and reports of trims look on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokswap.cli._heal_text import step_lines
from tokswap.cli._output import columns, next_command, note_lines
from tokswap.cli._plan_text import sizes_text
from tokswap.errors import count_of
from tokswap.report.wording import KEPT, duration, share, size

if TYPE_CHECKING:
    from tokswap.report.plan import Plan
    from tokswap.report.record import Report


def plan_lines(plan: Plan) -> list[str]:
    """Return the lines that describe the plan of a trim."""
    total = sum(plan.coverage.values())
    before = max(plan.matrices[0].shape_before or (1,))
    needs = f"about {size(plan.estimate.memory_bytes)} of memory; writes {size(plan.sizes.bytes_written)}"
    rows = [("tokenizer", plan.change.family_after), ("size", sizes_text(plan.sizes)), ("needs", needs)]
    lines = [f"trim: {plan.names.model} -> {plan.names.out or 'in memory'}", "", *columns(rows)]
    for facts in getattr(plan.counted, "corpora", ()):
        once = "" if facts.once is None else f"; a new text may need others for {share(facts.once)} of its tokens"
        lines.append(
            f"  {facts.name}: {size(facts.bytes)}, {facts.distinct:,} distinct tokens, "
            f"{100 * facts.kept:.4g} % of its tokens kept{once}"
        )
        *points, (_, held) = facts.curve
        needed = ", ".join(f"{100 * part:.4g} % of it: {count:,}" for part, count in points)
        lines.append(f"    tokens for {needed}; kept: {held:,}")
    lines += ["", f"  {count_of(before, 'row')} -> {total:,} ({100 * total / before:.1f} %)"]
    kept = [(f"{count:,}", KEPT[reason]) for reason, count in sorted(plan.coverage.items(), key=lambda item: -item[1])]
    return [*lines, *columns(kept, right=(0,), indent="    "), *note_lines(plan.notes)]


def report_lines(report: Report) -> list[str]:
    """Return the lines that tell what a trim did and what was measured on the result."""
    names, sizes, checks = report.plan.names, report.plan.sizes, report.checks
    saved = sizes.parameters_before - sizes.parameters_after
    lines = [
        f"wrote {names.out}: {size(sizes.bytes_after)} in {duration(report.seconds['all'])}",
        f"  saved: {saved / 1e6:,.1f} M of {sizes.parameters_before / 1e6:,.1f} M parameters, "
        f"{size(sizes.bytes_before - sizes.bytes_after)} of {size(sizes.bytes_before)}",
    ]
    for key, name in (("corpus", "the text"), ("held_out", "held-out text")):
        if key in checks and checks[key]["pieces"]:  # --like reads no text
            lines.append(_tokenization(name, checks[key]))
    loaded = checks["reloaded"]
    pieces = f"{loaded['exact']:,} of {count_of(loaded['pieces'], 'piece')} exact"
    chats = f"chat template: {loaded['chats_equal']} of {count_of(loaded['chats'], 'conversation')} equal"
    if said := [line for line, key in ((pieces, "pieces"), (chats, "chats")) if loaded[key]]:
        lines.append(f"  AutoTokenizer: {'; '.join(said)}")
    before, after = checks["unreachable"]
    lines.append(f"  tokens that no text produces: {before:,} -> {after:,}")
    if "model" in checks:
        lines.append(_outputs(checks["model"]))
    if "not_compared" in checks:
        lines.append(f"  model: outputs not compared: {checks['not_compared']['reason']}")
    if "healing" in report.evidence:
        lines += step_lines(report.evidence["healing"])
    following = next_command("verify", names.out, "--against", names.model)
    return [*lines, *note_lines(report.notes), "", following]


def _tokenization(name: str, found: Mapping[str, Any]) -> str:
    per_byte = " -> ".join(f"{value:.4f}" for value in found["tokens_per_byte"])
    return (
        f"  {name}: {100 * found['tokens_kept']:.4g} % of its tokens kept; "
        f"{found['exact']:,} of {count_of(found['kept'], 'piece')} of kept tokens exact ({found['pieces']:,} in all); "
        f"tokens per byte {per_byte}; "
        f"unknown {_shares(found['unknown'])}; byte tokens {_shares(found['byte_fallback'])}"
    )


def _outputs(model: Mapping[str, Any]) -> str:
    equal = "bit-equal" if model["hidden_states_equal"] else "NOT equal"
    line = f"  model: hidden states {equal} over {count_of(model['tokens'], 'token')}"
    if "logit_difference" not in model:
        return line
    return (
        f"{line}; logits differ by {model['logit_difference']:.2g} at most; removed tokens had "
        f"{share(model['removed_mass'])} of the probability; same most likely token "
        f"{100 * model['argmax_agreement']:.4g} %"
    )


def _shares(values: Sequence[float]) -> str:
    return " -> ".join(map(share, values))
