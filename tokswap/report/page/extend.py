"""The page of an extension: that of a transplant, with the new tokens and what they save."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tokswap.errors import count_of
from tokswap.report.page import transplant
from tokswap.report.page.parts import Block, Page, Section, Table, percent
from tokswap.report.wording import quoted, size

_SHOWN = 500


def page(document: Mapping[str, Any]) -> Page:
    """Return the page of a report (`Report.as_dict`, or tokswap.json)."""
    whole, plan = transplant.page(document), document["plan"]
    added = len(plan["added"])
    lead = f"{plan['model']} with {count_of(added, 'new token')}."
    return replace(whole, lead=lead, sections=[_tokens(plan), *whole.sections])


def _tokens(plan: Mapping[str, Any]) -> Section:
    rows = [(f"{token:,}", text, " + ".join(parts)) for token, text, parts in plan["added"][:_SHOWN]]
    blocks: list[Block] = [
        Table(f"New tokens, the first {_SHOWN}" if len(plan["added"]) > _SHOWN else "New tokens", ("id", "", ""), rows)
    ]
    if plan["saving"]:
        used, held = plan["text_bytes"]
        saved = [
            (f"{row['tokens']:,}", *(percent(row[key]) for key in ("used", "held_out", "per_thousand")))
            for row in plan["saving"]
        ]
        head = ("new tokens", f"saved on {size(used)}", f"on {size(held)} held out", "per thousand")
        shown = len(head) if held else 2  # a short text has no part to hold out
        blocks.append(Table("Tokens saved", head[:shown], [row[:shown] for row in saved], right=tuple(range(shown))))
    if plan["skipped"]:
        skipped = [(quoted(term), why) for term, why in list(plan["skipped"].items())[:_SHOWN]]
        blocks.append(Table("Terms that are not added", ("", ""), skipped))
    text = f"{plan['intermediate']:,} of the new tokens only lie on the way to others."
    return Section("New tokens", blocks, text if plan["intermediate"] else "")
