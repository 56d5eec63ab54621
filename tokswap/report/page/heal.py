"""The page of a healing, and the section that the pages of other commands have of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokswap.errors import count_of
from tokswap.report.page.charts import Bar, bars, curve
from tokswap.report.page.parts import Block, Page, Section, Table, key_values
from tokswap.report.page.run import GROUPS_DRAWN
from tokswap.report.wording import duration, size

_WHAT = {
    "adapter": "embeddings and a LoRA adapter",
    "embeddings": "embeddings",
    "full": "all weights",
    "new": "new rows",
}


def page(document: Mapping[str, Any]) -> Page:
    """Return the page of a healing (`HealReport.as_dict`)."""
    plan, found = document["plan"], document["heal"]
    before, after = (found[f"excess_{when}"]["all"] for when in ("before", "after"))
    settings = {"model": plan["model"], "teacher": plan["teacher"], "result": plan["out"]}
    options = {name.replace("_", " "): value for name, value in plan["options"].items()}
    seconds = [(stage, f"{value:.1f} s") for stage, value in document["seconds"].items()]
    course: list[Block] = [
        Table("Time", ("stage", "time"), seconds, right=(1,)),
        key_values("Settings", {**settings, "learned": _WHAT[plan["train"]["what"]], **options}),
    ]
    return Page(
        title=Path(plan["out"] or plan["model"]).name,
        lead=f"{plan['model']}, trained to predict what {plan['teacher']} does.",
        facts=[
            (f"{before:.3f} → {after:.3f}", "excess in bits per byte, on held-out text"),
            (size(found["text"]["bytes"]), "of text"),
            (f"{found['steps']:,}", "steps"),
            (duration(document["seconds"]["all"]), "for the whole run"),
        ],
        sections=[healing(found), Section("The run", course)],
        notes=(*plan["notes"], *([found["stopped"]] if found["stopped"] else [])),
    )


def healed(document: Mapping[str, Any]) -> list[Section]:
    """Return the section about the healing of another command's result, where there was one."""
    found = document.get("heal") or document.get("evidence", {}).get("healing")
    return [healing(found)] if found else []


def healing(found: Mapping[str, Any]) -> Section:
    """Return the section about a healing: the curve of the excess, and each file before and after."""
    before, after = found["excess_before"], found["excess_after"]
    names = [name for name in before if name != "all"]
    groups = [
        (name, [Bar(values[name], f"{values[name]:+.3f}") for values in (before, after)])
        for name in ["all", *names][:GROUPS_DRAWN]
    ]
    rows = [(name, f"{before[name]:+.3f}", f"{after[name]:+.3f}") for name in before]
    points = [(float(tokens), float(value)) for _, tokens, value in found["held_out"]]
    blocks: list[Block] = []
    if len(points) > 1:
        blocks.append(curve("Excess on held-out text", points, across="tokens of training"))
    losses = [(float(step), float(loss)) for step, loss, *_ in found["loss"]]
    if len(losses) > 1:
        blocks.append(curve("Loss of the steps", losses, across="steps"))
    blocks += [
        bars("Excess before and after", groups, ("before", "after"), note="Bits per byte above the teacher's."),
        Table("Excess before and after", ("held-out text", "before", "after"), rows, right=(1, 2)),
    ]
    text = found["text"]
    written = text["written_by_the_teacher"]
    read = f"{size(text['bytes'])} of text ({count_of(text['tokens'], 'token')})"
    intro = f"Trained on {read}, in {count_of(found['steps'], 'step')}."
    if written:
        intro += f" The teacher wrote {size(written)} of it."
    return Section("Healing", blocks, intro)
