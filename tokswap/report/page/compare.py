"""The page of a comparison of two tokenizers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokswap.report.page.charts import Bar, bars, stacks
from tokswap.report.page.parts import Block, Page, Section, Table, percent
from tokswap.report.page.run import GROUPS_DRAWN


def page(document: Mapping[str, Any]) -> Page:
    """Return the page of a comparison.

    Args:
        document: What `compare_tokenizers` returns, and under "names" what A and B were called.
    """
    first, second = document["names"]
    names = [Path(name).name for name in (first, second)]
    if names[0] == names[1]:
        names = [first, second]
    sizes, share = document["sizes"], document["shared_share"]
    return Page(
        title=f"{names[0]} and {names[1]}",
        lead=f"A is {first}, B is {second}. Two tokens are the same if they have the same bytes.",
        facts=[
            (f"{document['shared']:,}", "shared tokens"),
            (percent(share[0]), f"of {names[0]}'s {sizes[0]:,} ids"),
            (percent(share[1]), f"of {names[1]}'s {sizes[1]:,} ids"),
        ],
        sections=[
            _tokens(document),
            _texts(document, names),
            *_measured(document, names),
            _differences(document, names),
        ],
    )


def _tokens(document: Mapping[str, Any]) -> Section:
    scripts = [(name, *counts) for name, counts in document["scripts"].items()]
    drawn = [(name, f"A {a:,}, B {b:,}", (both, a - both, b - both)) for name, a, b, both in scripts[:GROUPS_DRAWN]]
    rows = [(name, f"{a:,}", f"{b:,}", f"{both:,}") for name, a, b, both in scripts]
    blocks: list[Block] = [
        stacks("By script", drawn, ("in both", "only in A", "only in B")),
        Table("By script", ("", "A", "B", "in both"), rows, right=(1, 2, 3)),
    ]
    return Section("What they share", blocks)


def _texts(document: Mapping[str, Any], names: list[str]) -> Section:
    texts = list(document["tokens_per_byte"].items())
    groups = [(name, [Bar(value, f"{value:.3f}") for value in pair]) for name, pair in texts[:GROUPS_DRAWN]]
    rows = [(name, f"{a:.3f}", f"{b:.3f}", f"{100 * (b / a - 1):+.0f} %" if a else "") for name, (a, b) in texts]
    series = [f"A: {names[0]}", f"B: {names[1]}"]
    blocks: list[Block] = []
    if texts:
        blocks = [
            bars("Tokens per byte", groups, series, note="Shorter is better: fewer tokens for the same text."),
            Table("Tokens per byte", ("", "A", "B", "change"), rows, right=(1, 2, 3)),
        ]
    return Section("How many tokens a text takes", blocks)


def _differences(document: Mapping[str, Any], names: list[str]) -> Section:
    spaces = [
        f"runs of {s['longest_spaces']} spaces, {s['longest_newlines']} newlines; indent "
        + ("joined to newline" if s["newline_with_indent"] else "separate")
        for s in document["whitespace"]
    ]
    rows = [
        ("name", *names),
        ("family", *document["families"]),
        ("ids", *(f"{count:,}" for count in document["sizes"])),
        ("numbers", *document["digits"]),
        ("white space", *spaces),
        ("begins with bos", *("yes" if flag else "no" for flag in document["begins_with_bos"])),
    ]
    specials = [(token, source or "none") for token, source in document["specials"].items()]
    blocks: list[Block] = [Table("How they work", ("", "A", "B"), rows)]
    if specials:
        blocks.append(Table("Special tokens of B, and their counterparts in A", ("B", "A"), specials, code=(0, 1)))
    return Section("How they differ", blocks)


_FIGURES = {
    "renyi": "Renyi efficiency",
    "whole_words": "words that are one token",
    "noise_growth": "tokens with OCR errors, relative",
    "noise_kept": "tokens that OCR errors leave",
}


def _measured(document: Mapping[str, Any], names: list[str]) -> list[Section]:
    """Return a section of what only a flag asks for; none without it."""
    blocks: list[Block] = []
    rows = [
        (name, title, f"{a[key]:.3f}", f"{b[key]:.3f}")
        for name, (a, b) in document.get("on_texts", {}).items()
        for key, title in _FIGURES.items()
    ]
    if rows:
        blocks.append(Table("On texts", ("text", "", *names), rows, right=(2, 3)))
    if "parity" in document:
        a, b = document["parity"]
        groups = [(name, [Bar(one[name], f"{one[name]:.2f}") for one in (a, b)]) for name in a]
        note = "1 is a language that takes as many tokens as the first for the same content."
        blocks.append(bars("Tokens of the same text", groups, [f"A: {names[0]}", f"B: {names[1]}"], note=note))
        parity = [(name, f"{a[name]:.3f}", f"{b[name]:.3f}") for name in a]
        blocks.append(Table("Tokens of the same text", ("language", *names), parity, right=(1, 2)))
    if "terms" in document:
        a, b = document["terms"]
        terms = [
            ("tokens per term", f"{a['tokens_per_term']:.3f}", f"{b['tokens_per_term']:.3f}"),
            ("terms that are one token", percent(a["single"]), percent(b["single"])),
        ]
        blocks.append(Table(f"{a['terms']:,} terms", ("", *names), terms, right=(1, 2)))
    tokens = [
        (title, *(f"{one[key]:,}" for one in document[group]))
        for group, key, title in (
            ("tokens", "unreachable", "tokens that their own bytes do not give"),
            ("tokens", "ambiguous", "of them: other tokens spell the same text"),
            ("undertrained", "count", "tokens that the model has hardly been trained on"),
        )
        if group in document
    ]
    if tokens:
        blocks.append(Table("Tokens that text does not use", ("", *names), tokens, right=(1, 2)))
    named = [", ".join(one["tokens"]) for one in document.get("undertrained", [])]
    if any(named):
        blocks.append(Table("Hardly trained", tuple(names), [tuple(named)], code=(0, 1)))
    return [Section("How they do on texts and terms", blocks)] if blocks else []
