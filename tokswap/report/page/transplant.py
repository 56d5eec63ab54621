"""The page of a transplant: provenance of the rows, the method, and the new rows themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokswap.errors import count_of
from tokswap.report.page.charts import Bar, bars, distribution, spread, stacks
from tokswap.report.page.heal import healed
from tokswap.report.page.parts import Block, Page, Section, Table, key_values, percent
from tokswap.report.page.run import GROUPS_DRAWN, course, sizes
from tokswap.report.wording import COVERAGE, duration, size

_COPIED = ("bytes", "role", "text", "preset", "map")
_NEUTRAL = ("neutral", "unreachable", "padding")
_SHARES = ("copied", "initialised", "never predicted")
_SHARE_COLOURS = (0, 1, 4)
_NORM_NAMES = {"made": "initialised"}
"""Names in the report -> what the page calls them."""


def page(document: Mapping[str, Any]) -> Page:
    """Return the page of a report (`Report.as_dict`, or tokswap.json)."""
    plan = document["plan"]
    total = sum(plan["coverage"].values())
    copied, new, _ = _shares(plan["coverage"])
    return Page(
        title=Path(plan["out"]).name,
        lead=f"{plan['model']} with the tokenizer of {plan['tokenizer']}: {plan['family_after']} in place of "
        f"{plan['family_before']}.",
        facts=[
            (percent(copied / total), f"of {count_of(total, 'row')} copied"),
            (f"{new:,}", f"rows initialised by {plan['method']}"),
            (f"{size(plan['bytes_before'])} → {size(plan['bytes_after'])}", "weights"),
            (duration(document["seconds"]["all"]), "for the whole run"),
        ],
        sections=[
            _provenance(document),
            _method(document),
            _rows(document),
            *healed(document),
            sizes(plan),
            course(document),
        ],
        notes=(*plan["notes"], *document["notes"]),
    )


def _provenance(document: Mapping[str, Any]) -> Section:
    plan = document["plan"]
    total = sum(plan["coverage"].values())
    reasons = [
        (COVERAGE[reason].format(method=plan["method"]), f"{count:,}", percent(count / total))
        for reason, count in sorted(plan["coverage"].items(), key=lambda item: -item[1])
    ]
    whole = [("rows of the result", f"{total:,}", _shares(plan["coverage"]))]
    blocks: list[Block] = [
        stacks("All rows", whole, _SHARES, colours=_SHARE_COLOURS),
        Table("Provenance of the rows", ("", "rows", "share"), reasons, right=(1, 2)),
        *_groups(document),
    ]
    return Section(
        "Where the rows come from",
        blocks,
        "A row is copied bit for bit where the source model has the same token, and initialised where it has not. "
        "Special tokens that the model lacks, ids that the tokenizer never produces, and padding rows get a neutral "
        "row, which is never predicted.",
    )


def _groups(document: Mapping[str, Any]) -> list[Block]:
    groups = [(group, sum(counts.values()), _shares(counts)) for group, counts in document.get("groups", {}).items()]
    if not groups:
        return []
    before = document.get("groups_before", {})
    drawn = [
        (group, f"{count_of(n, 'token')}, {percent(shares[0] / n)} copied", shares)
        for group, n, shares in groups[:GROUPS_DRAWN]
    ]
    rows = [
        (group, f"{n:,}", *(f"{share:,}" for share in shares), f"{before.get(group, 0):,}")
        for group, n, shares in groups
    ]
    return [
        stacks("By script and kind", drawn, _SHARES, colours=_SHARE_COLOURS),
        Table("By script and kind", ("", "tokens", *_SHARES, "source has"), rows, right=(1, 2, 3, 4, 5)),
    ]


def _shares(counts: Mapping[str, int]) -> tuple[int, int, int]:
    """Rows that are copied, initialised and never predicted."""
    copied = sum(counts.get(reason, 0) for reason in _COPIED)
    return copied, counts.get("missing", 0), sum(counts.get(reason, 0) for reason in _NEUTRAL)


def _method(document: Mapping[str, Any]) -> Section:
    plan, evidence = document["plan"], document["evidence"]
    settings = {key: value for key, value in plan["settings"].items() if not isinstance(value, dict)}
    method = {"method": plan["method"], **settings, "for lm_head": plan["output_method"], "donor": plan["donor"]}
    blocks: list[Block] = [key_values("Method", method)]
    for role, found in evidence.items():
        if "candidates" in found:
            blocks += _candidates(role, found)
    intro = ""
    if any("candidates" in found for found in evidence.values()):
        intro = (
            "auto tests its candidates on shared tokens that it hides. It uses the best one, and another one for a "
            "script where that is clearly better."
        )
    return Section("How the new rows were computed", blocks, intro)


def _candidates(role: str, found: Mapping[str, Any]) -> list[Block]:
    candidates = sorted(found["candidates"], key=lambda one: one["error"])
    best = found["chosen"]["all"]
    groups = [
        (
            one["method"] + (" (chosen)" if one["method"] == best else ""),
            [Bar(one["error"], f"{one['error']:.3f}")],
        )
        for one in candidates
    ]
    chosen = next(n for n, one in enumerate(candidates) if one["method"] == best)
    note = f"Shorter is better: mean error on {count_of(found['hidden'], 'hidden shared token')}."
    drawing = bars(f"Candidates for the {role} matrix", groups, highlighted=chosen, note=note)
    return [drawing, *_candidates_by_script(role, found, candidates)]


def _candidates_by_script(role: str, found: Mapping[str, Any], candidates: list[Mapping[str, Any]]) -> list[Block]:
    scripts = sorted({script for one in candidates for script in one.get("by_script", {})})
    if not scripts:
        return []
    chosen = found["chosen"]
    rows = [("all", *(f"{one['error']:.3f}" for one in candidates), chosen["all"])]
    rows += [
        (script, *(f"{one['by_script'][script]:.3f}" for one in candidates), chosen.get(script, "as for all"))
        for script in scripts
    ]
    head = ("", *(one["method"] for one in candidates), "used")
    return [Table(f"Error by script, {role} matrix", head, rows, right=tuple(range(1, len(candidates) + 1)))]


def _rows(document: Mapping[str, Any]) -> Section:
    blocks = [*_norms(document), *_diagnostics(document)]
    if document["worst"]:
        rows = [(token, f"{residual:.3f}") for token, residual in document["worst"]]
        blocks.append(Table("Largest residuals", ("token", "residual"), rows, right=(1,), code=(0,)))
    if document.get("unusual"):
        unusual = [(token, f"{norm:.3f}", " ".join(pieces)) for token, norm, pieces in document["unusual"]]
        note = (
            "New input rows whose norm differs most from the usual one. Look at these first if something seems wrong."
        )
        head = ("token", "norm", "its source tokens")
        blocks.append(Table("Most unusual norms", head, unusual, right=(1,), code=(0, 2), note=note))
    return Section("What the new rows look like", blocks)


def _norms(document: Mapping[str, Any]) -> list[Block]:
    note = "Each curve is relative to its own peak. The last bin counts all larger norms."
    blocks: list[Block] = []
    for role, found in document.get("tokens", {}).get("norms", {}).items():
        if found:
            counts = {_NORM_NAMES.get(name, name): values for name, values in found.items() if name != "edges"}
            blocks.append(distribution(f"Norms of the {role} rows", found["edges"], counts, note=note))
    return blocks


def _diagnostics(document: Mapping[str, Any]) -> list[Block]:
    """One drawing per diagnostic; those that are equal for all rows share a table."""
    blocks: list[Block] = []
    equal: dict[str, object] = {}
    for role, named in document.get("tokens", {}).get("diagnostics", {}).items():
        for name, values in named.items():
            title = f"{name.replace('_', ' ')} of the {role} rows"
            if values and min(values) == max(values):
                equal[title] = f"{values[0]:g}"
            elif values:
                blocks.append(spread(title[0].upper() + title[1:], values, "initialised", colour=1))
    return [*blocks, key_values("Equal for all new rows", equal)] if equal else blocks
