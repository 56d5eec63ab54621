"""The page of a trim: what was kept and why, what was saved, and whether the result computes the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokswap.report.page.charts import Bar, Chart, bars, stacks
from tokswap.report.page.parts import Page, Section, Table, percent
from tokswap.report.page.run import GROUPS_DRAWN, course, sizes
from tokswap.report.wording import KEPT, size


def page(document: Mapping[str, Any]) -> Page:
    """Return the page of a Report (`Report.as_dict`, or tokswap.json)."""
    plan = document["plan"]
    rows = sum(plan["coverage"].values())
    before = max((table["shape_before"] or [0])[0] for table in plan["tables"])
    saved = plan["parameters_before"] - plan["parameters_after"]
    facts = [
        (f"{before:,} → {rows:,}", f"rows, {percent(rows / before)} of them"),
        (f"{saved / 1e6:,.1f} M", f"of {plan['parameters_before'] / 1e6:,.1f} M parameters saved"),
        (f"{size(plan['bytes_before'])} → {size(plan['bytes_after'])}", "weights"),
        ("none" if not document["checks"]["failed"] else f"{len(document['checks']['failed'])}", "checks failed"),
    ]
    lead = f"{plan['model']} ({plan['family_after']}) without the tokens that are not needed."
    sections = [_kept(document), _checks(document["checks"]), sizes(plan), course(document)]
    notes = (*document["checks"]["failed"], *plan["notes"], *document["notes"])
    return Page(Path(plan["out"]).name, lead, facts, sections, notes)


def _kept(document: Mapping[str, Any]) -> Section:
    plan = document["plan"]
    coverage = sorted(plan["coverage"].items(), key=lambda item: -item[1])
    total = sum(plan["coverage"].values())
    blocks: list[Chart | Table] = [
        bars("Kept rows", [(KEPT[reason], [Bar(count, f"{count:,}")]) for reason, count in coverage]),
        Table(
            "Why rows were kept",
            ("", "rows", "share"),
            [(KEPT[reason], f"{count:,}", percent(count / total)) for reason, count in coverage],
            right=(1, 2),
        ),
    ]
    kept = {group: sum(counts.values()) for group, counts in document.get("groups", {}).items()}
    groups = [(group, count, kept.get(group, 0)) for group, count in document.get("groups_before", {}).items()]
    if groups:
        drawn = [(group, f"{count:,} → {left:,}", (left, count - left)) for group, count, left in groups[:GROUPS_DRAWN]]
        rows = [(group, f"{count:,}", f"{left:,}", percent(left / count)) for group, count, left in groups]
        blocks += [
            stacks("By script and kind", drawn, ("kept", "dropped"), colours=(0, 4)),
            Table("By script and kind", ("", "before", "after", "kept"), rows, right=(1, 2, 3)),
        ]
    if plan.get("corpora"):
        corpora = [
            (
                c["name"],
                size(c["bytes"]),
                f"{c['distinct']:,}",
                percent(c["kept"]),
                "" if c["once"] is None else percent(c["once"]),
            )
            for c in plan["corpora"]
        ]
        head = ("", "size", "different tokens", "of its tokens kept", "a new text may lack")
        blocks.append(Table("What was counted", head, corpora, right=(1, 2, 3, 4), wide=True))
    return Section("What was kept", blocks, "Text whose tokens are all kept is cut into the same tokens as before.")


def _checks(checks: Mapping[str, Any]) -> Section:
    rows: list[tuple[str, str, str]] = []
    blocks: list[Chart | Table] = []
    for key, name in (("corpus", "the text"), ("held_out", "held-out text")):
        found = checks.get(key)
        if found:
            rows.append(
                (
                    f"{name}: pieces of kept tokens",
                    _passed(found["exact"] == found["kept"]),
                    f"{found['exact']:,} of {found['kept']:,} cut as before ({found['pieces']:,} pieces in all)",
                )
            )
            per_byte = found["tokens_per_byte"]
            groups = [
                (when, [Bar(value, f"{value:.4f}")]) for when, value in zip(("before", "after"), per_byte, strict=True)
            ]
            blocks.append(bars(f"Tokens per byte, {name}", groups, highlighted=1))
    loaded = checks.get("reloaded")
    if loaded:
        rows.append(
            (
                "AutoTokenizer",
                _passed(loaded["exact"] == loaded["pieces"]),
                f"{loaded['exact']:,} of {loaded['pieces']:,} pieces cut as before",
            )
        )
        if loaded["chats"]:
            equal, chats = loaded["chats_equal"], loaded["chats"]
            rows.append(("chat template", _passed(equal == chats), f"{equal} of {chats} conversations equal"))
    model = checks.get("model")
    if model:
        rows.append(
            (
                "hidden states",
                _passed(model["hidden_states_equal"]),
                f"compared bit for bit over {model['tokens']:,} tokens",
            )
        )
        if "logit_difference" in model:
            rows += [
                ("logits of kept tokens", "measured", f"differ by {model['logit_difference']:.2g} at most"),
                ("probability of removed tokens", "measured", percent(model["removed_mass"])),
                ("same likeliest token", "measured", percent(model["argmax_agreement"])),
            ]
    unreachable = checks["unreachable"]
    rows.append(("tokens that no text is cut into", "measured", f"{unreachable[0]:,} → {unreachable[1]:,}"))
    return Section("Checks", [Table("Checks on the written folder", ("", "", ""), rows), *blocks])


def _passed(ok: bool) -> str:
    return "ok" if ok else "FAILED"
