"""The page of a transplant: where the rows come from, how the new ones were made, and what they look like."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokswap.report.page.charts import Bar, Chart, bars, distribution, spread, stacks
from tokswap.report.page.parts import Page, Section, Table, key_values, percent
from tokswap.report.page.run import GROUPS_DRAWN, course, sizes
from tokswap.report.wording import COVERAGE, duration, size

_COPIED = ("bytes", "role", "text", "preset", "map")


def page(document: Mapping[str, Any]) -> Page:
    """Return the page of a Report (`Report.as_dict`, or tokswap.json)."""
    plan = document["plan"]
    coverage = plan["coverage"]
    total, made = sum(coverage.values()), coverage.get("missing", 0)
    copied = sum(coverage.get(reason, 0) for reason in _COPIED)
    facts = [
        (percent(copied / total), f"of {total:,} rows copied"),
        (f"{made:,}", f"rows made by {plan['method']}"),
        (f"{size(plan['bytes_before'])} → {size(plan['bytes_after'])}", "weights"),
        (duration(document["seconds"]["all"]), "for the whole run"),
    ]
    lead = f"{plan['model']} with the tokenizer of {plan['tokenizer']}: {plan['family_before']} became {plan['family_after']}."
    sections = [_coverage(document), _method(document), _rows(document), sizes(plan), course(document)]
    return Page(Path(plan["out"]).name, lead, facts, sections, (*plan["notes"], *document["notes"]))


def _coverage(document: Mapping[str, Any]) -> Section:
    plan = document["plan"]
    counts = sorted(plan["coverage"].items(), key=lambda item: -item[1])
    total = sum(plan["coverage"].values())
    reasons = [
        (COVERAGE[reason].format(method=plan["method"]), f"{count:,}", percent(count / total))
        for reason, count in counts
    ]
    groups = [(group, sum(counts.values()), *_shares(counts)) for group, counts in document.get("groups", {}).items()]
    before = document.get("groups_before", {})
    table = [
        (group, f"{n:,}", f"{copied:,}", f"{made:,}", f"{never:,}", f"{before.get(group, 0):,}")
        for group, n, copied, made, never in groups
    ]
    blocks: list[Chart | Table] = [
        stacks(
            "All rows",
            [("rows of the result", f"{total:,}", _shares(plan["coverage"]))],
            ("copied", "made", "never predicted"),
            colours=(0, 1, 4),
        ),
        Table("Why each row is what it is", ("", "rows", "share"), reasons, right=(1, 2)),
    ]
    if groups:
        drawn = [
            (group, f"{n:,} tokens, {percent(copied / n)} copied", (copied, made, never))
            for group, n, copied, made, never in groups[:GROUPS_DRAWN]
        ]
        blocks += [
            stacks("By script and kind", drawn, ("copied", "made", "never predicted"), colours=(0, 1, 4)),
            Table(
                "By script and kind",
                ("", "tokens", "copied", "made", "never predicted", "source has"),
                table,
                right=(1, 2, 3, 4, 5),
            ),
        ]
    return Section(
        "Where the rows come from",
        blocks,
        "A row is copied bit for bit where the source model knows the same token, and made where it does not. Control tokens "
        "that it lacks, and padding, get a row that is never predicted.",
    )


def _shares(counts: Mapping[str, int]) -> tuple[int, int, int]:
    """Copied, made, never predicted."""
    copied = sum(counts.get(reason, 0) for reason in _COPIED)
    return copied, counts.get("missing", 0), counts.get("neutral", 0) + counts.get("padding", 0)


def _method(document: Mapping[str, Any]) -> Section:
    plan, evidence = document["plan"], document["evidence"]
    settings = {key: value for key, value in plan["settings"].items() if not isinstance(value, dict)}
    method = {"method": plan["method"], **settings, "for the head": plan["output_method"], "donor": plan["donor"]}
    blocks: list[Chart | Table] = [key_values("Method", method)]
    for role, found in evidence.items():
        if role == "calibration":
            blocks += _calibration(found)
        elif "candidates" in found:
            blocks += _candidates(role, found)
    intro = ""
    if any("candidates" in found for found in evidence.values()):
        intro = (
            "auto hides tokens that both vocabularies share, or takes your text, lets every candidate make their rows, and "
            "uses the one that comes nearest; another one for a script where that is clearly better for it."
        )
    return Section("How the new rows were made", blocks, intro)


def _candidates(role: str, found: Mapping[str, Any]) -> list[Chart | Table]:
    by_text = role == "text"
    measure, digits = ("bits_per_byte", 3) if by_text else ("error", 3)
    candidates = sorted(found["candidates"], key=lambda one: one[measure])
    best = found["chosen"]["all"]
    basis = "bits per byte of your text" if by_text else f"mean error on {found['hidden']:,} hidden shared tokens"
    title = "Candidates" if by_text else f"Candidates for the {role} table"
    groups = [
        (
            one["method"] + (" (chosen)" if one["method"] == best else ""),
            [Bar(one[measure], f"{one[measure]:.{digits}f}")],
        )
        for one in candidates
    ]
    chosen = next(n for n, one in enumerate(candidates) if one["method"] == best)
    blocks: list[Chart | Table] = [bars(title, groups, highlighted=chosen, note=f"Shorter is better: {basis}.")]
    scripts = sorted({script for one in candidates for script in one.get("by_script", {})})
    if scripts:
        rows = [
            (
                script,
                *(f"{one['by_script'][script]:.{digits}f}" for one in candidates),
                found["chosen"].get(script, "as for all"),
            )
            for script in scripts
        ]
        all_row = ("all", *(f"{one[measure]:.{digits}f}" for one in candidates), best)
        head = ("", *(one["method"] for one in candidates), "used")
        right = tuple(range(1, len(candidates) + 1))
        blocks.append(Table(f"Error by script, {role} table", head, [all_row, *rows], right=right))
    return blocks


def _calibration(found: Mapping[str, Any]) -> list[Chart | Table]:
    before, after = found["held_out_bits_per_byte"]
    groups = [("before", [Bar(before, f"{before:.3f}")]), ("after", [Bar(after, f"{after:.3f}")])]
    return [
        bars("Calibration: bits per byte of the held-out part", groups, highlighted=1),
        key_values(
            "Calibration",
            {"rows fitted": found["rows_fitted"], "tokens read": found["tokens"], "time": duration(found["seconds"])},
        ),
    ]


def _rows(document: Mapping[str, Any]) -> Section:
    blocks: list[Chart | Table] = []
    tokens = document.get("tokens", {})
    calibrated = " Before the calibration." if document["calibrated"] else ""
    for role, found in tokens.get("norms", {}).items():
        if found:
            counts = {name: values for name, values in found.items() if name != "edges"}
            note = (
                "Rows by their Euclidean length, each curve to its own peak; the last bin holds all that are longer."
                + calibrated
            )
            blocks.append(distribution(f"Length of the {role} rows", found["edges"], counts, note=note))
    same: dict[str, object] = {}
    for role, named in tokens.get("diagnostics", {}).items():
        for name, values in named.items():
            said = f"{name.replace('_', ' ')} of the {role} rows"
            if values and min(values) == max(values):
                same[said] = f"{values[0]:g}"
            elif values:
                blocks.append(spread(said[0].upper() + said[1:], values, "made", colour=1))
    if same:
        blocks.append(key_values("The same for all made rows", same))
    if document["worst"]:
        rows = [(token, f"{residual:.3f}") for token, residual in document["worst"]]
        blocks.append(Table("Explained least", ("token", "residual"), rows, right=(1,), code=(0,)))
    if document.get("unusual"):
        unusual = [(token, f"{length:.3f}", " ".join(pieces)) for token, length, pieces in document["unusual"]]
        note = "The made input rows farthest from the usual length: the first to look at where something seems wrong."
        head = ("token", "length", "its pieces in the source")
        blocks.append(Table("Most unusual rows", head, unusual, right=(1,), code=(0, 2), note=note))
    return Section("What the new rows look like", blocks)
