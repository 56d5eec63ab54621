"""How plans and reports of healing look on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokswap.cli._output import columns, next_command, note_lines
from tokswap.errors import count_of
from tokswap.report.wording import duration, size
from tokswap.storage.json_files import ADAPTER_CONFIG

if TYPE_CHECKING:
    from tokswap.heal.result import HealPlan, HealReport

_LEARNS = {
    "adapter": "embeddings, and a LoRA adapter of the body",
    "embeddings": "embeddings alone",
    "new": "the rows that were initialised, alone",
    "full": "all weights",
}


def plan_lines(plan: HealPlan) -> list[str]:
    """Return the lines that describe a plan."""
    text, train = plan.text, plan.train
    rows = [
        ("teacher", plan.teacher),
        ("learns", f"{_LEARNS[train['what']]}: {train['parameters'] / 1e6:,.1f} M parameters{_rate(train)}"),
    ]
    if text["passages"]:
        read = f"{count_of(text['tokens'], 'token')} in {count_of(text['passages'], 'passage')}"
        held_out = f"{count_of(text['held_out'], 'passage')} held out"
        rows.append(("text", f"{size(text['bytes'])}, {read}; {held_out}"))
    rows.append(("steps", f"about {train['steps']:,}"))
    estimate = plan.estimate
    rows.append(("needs", f"about {size(estimate.memory_bytes)} of memory and {duration(estimate.seconds)}"))
    return [f"heal: {plan.model} -> {plan.out or 'in memory'}", "", *columns(rows), *note_lines(plan.notes)]


def _rate(train: Mapping[str, Any]) -> str:
    return f", learning rate {train['rate']:.2g}" if train["what"] in ("adapter", "full") else ""


def report_lines(report: HealReport) -> list[str]:
    """Return the lines that tell what a run did, and what to do next."""
    healing, out = report.healing, report.plan.out
    seconds = report.seconds
    before, after = healing["excess_before"], healing["excess_after"]
    rows = [("", "before", "after"), *((name, f"{before[name]:+.3f}", f"{after[name]:+.3f}") for name in before)]
    lines = [
        f"wrote {out}: trained {_amount(healing)} in {duration(seconds['all'])} "
        f"(teacher {duration(seconds['teach'])}, training {duration(seconds['train'])})",
        "  excess on held-out text, bits per byte:",
        *columns(rows, right=(1, 2), indent="    "),
    ]
    if healing["stopped"]:
        lines.append(f"  stopped: {healing['stopped']}")
    if (Path(out) / ADAPTER_CONFIG).is_file():
        return [*lines, "", f"next: peft.AutoPeftModelForCausalLM.from_pretrained({out!r}) loads it with its model"]
    return [*lines, "", next_command("eval", out, "--against", report.plan.teacher, "--text", "FILE")]


def step_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the lines that tell what healing did as the last step of another command."""
    before, after = (found[f"excess_{when}"]["all"] for when in ("before", "after"))
    return [
        f"  healing: {_amount(found)} in {duration(found['seconds'])}; "
        f"excess on held-out text: {before:.3f} -> {after:.3f} bits per byte"
    ]


def _amount(found: Mapping[str, Any]) -> str:
    return f"{count_of(found['steps'], 'step')} on {count_of(found['text']['tokens'], 'token')}"
