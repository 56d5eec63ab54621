"""The page of a trim: what was kept and why, what was saved, and whether the result computes the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokswap.errors import count_of
from tokswap.report.page.charts import Bar, bars, stacks
from tokswap.report.page.heal import healed
from tokswap.report.page.parts import Block, Page, Section, Table, percent
from tokswap.report.page.run import GROUPS_DRAWN, before_after, course, sizes
from tokswap.report.wording import KEPT, size

_TEXTS = (("corpus", "the text"), ("held_out", "held-out text"))
_Row = tuple[str, str, str]


def page(document: Mapping[str, Any]) -> Page:
    """Return the page of a report (`Report.as_dict`, or tokswap.json)."""
    plan, failed = document["plan"], document["checks"]["failed"]
    rows = sum(plan["coverage"].values())
    before = max((matrix["shape_before"] or [0])[0] for matrix in plan["tables"])
    saved = plan["parameters_before"] - plan["parameters_after"]
    return Page(
        title=Path(plan["out"]).name,
        lead=f"{plan['model']} ({plan['family_after']}) without the tokens that are not needed.",
        facts=[
            (f"{before:,} → {rows:,}", f"rows, {percent(rows / before)} of them"),
            (f"{saved / 1e6:,.1f} M", f"of {plan['parameters_before'] / 1e6:,.1f} M parameters saved"),
            (f"{size(plan['bytes_before'])} → {size(plan['bytes_after'])}", "weights"),
            (f"{len(failed)}" if failed else "none", "checks failed"),
        ],
        sections=[_kept(document), _checks(document["checks"]), *healed(document), sizes(plan), course(document)],
        notes=(*failed, *plan["notes"], *document["notes"]),
    )


def _kept(document: Mapping[str, Any]) -> Section:
    plan = document["plan"]
    coverage = sorted(plan["coverage"].items(), key=lambda item: -item[1])
    total = sum(plan["coverage"].values())
    reasons = [(KEPT[reason], f"{count:,}", percent(count / total)) for reason, count in coverage]
    blocks: list[Block] = [
        bars("Kept rows", [(KEPT[reason], [Bar(count, f"{count:,}")]) for reason, count in coverage]),
        Table("Why rows were kept", ("", "rows", "share"), reasons, right=(1, 2)),
        *_groups(document),
    ]
    if plan.get("corpora"):
        corpora = [
            (
                corpus["name"],
                size(corpus["bytes"]),
                f"{corpus['distinct']:,}",
                percent(corpus["kept"]),
                "" if corpus["once"] is None else percent(corpus["once"]),
            )
            for corpus in plan["corpora"]
        ]
        head = ("", "size", "different tokens", "of its tokens kept", "a new text may lack")
        blocks.append(Table("What was counted", head, corpora, right=(1, 2, 3, 4), wide=True))
        blocks += [_curve(corpus) for corpus in plan["corpora"] if "curve" in corpus]  # older reports have none
    return Section("What was kept", blocks, "If all tokens of a text are kept, it has the same tokens as before.")


def _curve(corpus: Mapping[str, Any]) -> Table:
    """Show how many tokens make which share of a text: the most frequent ones, and those that are kept."""
    *points, kept = [(percent(share), f"{count:,}") for share, count in corpus["curve"]]
    rows = [*((*point, "the most frequent") for point in points), (*kept, "kept")]
    return Table(f"Tokens that {corpus['name']} needs", ("share of the text", "tokens", ""), rows, right=(0, 1))


def _groups(document: Mapping[str, Any]) -> list[Block]:
    kept = {group: sum(counts.values()) for group, counts in document.get("groups", {}).items()}
    groups = [(group, count, kept.get(group, 0)) for group, count in document.get("groups_before", {}).items()]
    if not groups:
        return []
    drawn = [(group, f"{count:,} → {left:,}", (left, count - left)) for group, count, left in groups[:GROUPS_DRAWN]]
    rows = [(group, f"{count:,}", f"{left:,}", percent(left / count)) for group, count, left in groups]
    return [
        stacks("By script and kind", drawn, ("kept", "dropped"), colours=(0, 4)),
        Table("By script and kind", ("", "before", "after", "kept"), rows, right=(1, 2, 3)),
    ]


def _checks(checks: Mapping[str, Any]) -> Section:
    texts = [(name, checks[key]) for key, name in _TEXTS if checks.get(key)]
    rows = [
        (
            f"{name}: pieces of kept tokens",
            _verdict(found["exact"] == found["kept"]),
            f"{found['exact']:,} of {found['kept']:,} tokenized as before ({found['pieces']:,} in all)",
        )
        for name, found in texts
    ]
    rows += _reloaded(checks.get("reloaded")) + _model(checks.get("model"))
    if "not_compared" in checks:
        rows.append(("hidden states", "not compared", checks["not_compared"]["reason"]))
    before, after = checks["unreachable"]
    rows.append(("tokens that no text produces", "measured", f"{before:,} → {after:,}"))
    drawings = [
        before_after(f"Tokens per byte, {name}", per_byte, [f"{value:.4f}" for value in per_byte])
        for name, per_byte in ((name, found["tokens_per_byte"]) for name, found in texts)
    ]
    return Section("Checks", [Table("Checks of the written folder", ("", "", ""), rows), *drawings])


def _reloaded(found: Mapping[str, Any] | None) -> list[_Row]:
    if not found:
        return []
    exact, pieces = found["exact"], found["pieces"]
    rows = [("AutoTokenizer", _verdict(exact == pieces), f"{exact:,} of {pieces:,} pieces tokenized as before")]
    if found["chats"]:
        equal, chats = found["chats_equal"], found["chats"]
        rows.append(("chat template", _verdict(equal == chats), f"{equal} of {chats} conversations equal"))
    return rows


def _model(found: Mapping[str, Any] | None) -> list[_Row]:
    if not found:
        return []
    compared = f"compared bit for bit over {count_of(found['tokens'], 'token')}"
    rows = [("hidden states", _verdict(found["hidden_states_equal"]), compared)]
    if "logit_difference" in found:
        rows += [
            ("logits of kept tokens", "measured", f"differ by at most {found['logit_difference']:.2g}"),
            ("probability of removed tokens", "measured", percent(found["removed_mass"])),
            ("same most likely token", "measured", percent(found["argmax_agreement"])),
        ]
    return rows


def _verdict(ok: bool) -> str:
    return "ok" if ok else "FAILED"
