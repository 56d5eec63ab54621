"""How plans and reports of extensions look on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from tokswap.cli import _plan_text
from tokswap.cli._output import columns
from tokswap.errors import count_of
from tokswap.report.wording import quoted, size

if TYPE_CHECKING:
    from tokswap.report.plan import ExtendFacts, Plan
    from tokswap.report.record import Report

_SHOWN, _SKIPPED = 30, 10


def plan_lines(plan: Plan) -> list[str]:
    """Return the lines that describe the plan of an extension."""
    facts = cast("ExtendFacts", plan.counted)
    return [*_plan_text.plan_lines(plan), *_added(facts), *_skipped(facts), *_saving(facts)]


def _added(facts: ExtendFacts) -> list[str]:
    count = len(facts.added)
    on_the_way = f", {facts.intermediate:,} of them on the way to others" if facts.intermediate else ""
    lines = ["", f"  {count_of(count, 'new token')}{on_the_way}"]
    rows = [(f"{token:,}", text, " + ".join(parts)) for token, text, parts in facts.added[:_SHOWN]]
    more = [f"    ... and {count - _SHOWN:,} more; --json lists them all"] if count > _SHOWN else []
    return [*lines, *columns(rows, right=(0,), indent="    "), *more]


def _skipped(facts: ExtendFacts) -> list[str]:
    if not facts.skipped:
        return []
    rows = [(quoted(term), why) for term, why in list(facts.skipped.items())[:_SKIPPED]]
    more = len(facts.skipped) - len(rows)
    last = [f"    ... and {more:,} more; --json lists them all"] if more else []
    return ["", f"  not added: {count_of(len(facts.skipped), 'term')}", *columns(rows, indent="    "), *last]


def _saving(facts: ExtendFacts) -> list[str]:
    if not facts.saving:
        return []
    used, held = facts.text_bytes
    rows = [
        (f"{row.tokens:,}", f"{100 * row.used:.2f} %", f"{100 * row.held_out:.2f} %", f"{100 * row.per_thousand:.2f} %")
        for row in facts.saving
    ]
    table = [("tokens", "saved", "held-out", "per thousand"), *rows]
    if not held:
        return [
            "",
            f"  tokens saved on {size(used)} of text; it is too short to hold a part of it out",
            *columns([row[:2] for row in table], right=(0, 1), indent="    "),
        ]
    ends = f"the first {facts.pays:,} save more compute than they cost"
    return [
        "",
        f"  tokens saved on {size(used)} of text, and on {size(held)} held out",
        *columns(table, right=(0, 1, 2, 3), indent="    "),
        f"    a thousand rows add {100 * facts.cost:.2f} % to the compute of a token: "
        + (ends if facts.pays else "no step saves more compute than it costs"),
    ]


def report_lines(report: Report) -> list[str]:
    """Return the lines that tell what an extension did, and what to do next."""
    lines = _plan_text.report_lines(report)
    checks = report.checks
    if "old_texts" in checks:
        old, new = checks["old_texts"], checks["new_tokens"]
        lines[1:1] = [
            f"  AutoTokenizer: {old['equal']:,} of {count_of(old['without'], 'text')} without a new token exact; "
            f"{new['produced']:,} of {new['tokens']:,} new tokens come out of their text"
        ]
    return lines
