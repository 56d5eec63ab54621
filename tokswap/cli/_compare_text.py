"""What `tokswap compare` has measured, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokswap.cli._output import columns
from tokswap.errors import count_of

_NAMED = 6
_TOKENS = {
    "unreachable": "that their own bytes do not give",
    "ambiguous": "of them: other tokens spell the same text",
}


def measured_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return the tables of what was asked for by a flag."""
    tables = (_texts, _parity, _terms, _tokens, _undertrained)
    return [line for table in tables for line in table(facts)]


def _texts(facts: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    names = {
        "renyi": "Renyi efficiency",
        "whole_words": "words that are one token",
        "noise_growth": "tokens with OCR errors, relative",
        "noise_kept": "tokens that OCR errors leave",
    }
    for text, (a, b) in facts.get("on_texts", {}).items():
        rows = [("", "A", "B"), *((title, f"{a[key]:.3f}", f"{b[key]:.3f}") for key, title in names.items())]
        lines += ["", f"on {text}", *columns(rows, right=(1, 2))]
    return lines


def _parity(facts: Mapping[str, Any]) -> list[str]:
    if "parity" not in facts:
        return []
    a, b = facts["parity"]
    rows = [("", "A", "B"), *((name, f"{a[name]:.3f}", f"{b[name]:.3f}") for name in a)]
    return ["", f"tokens of the same text, relative to {next(iter(a))}", *columns(rows, right=(1, 2))]


def _terms(facts: Mapping[str, Any]) -> list[str]:
    if "terms" not in facts:
        return []
    a, b = facts["terms"]
    rows = [
        ("", "A", "B"),
        ("tokens per term", f"{a['tokens_per_term']:.3f}", f"{b['tokens_per_term']:.3f}"),
        ("terms that are one token", f"{a['single']:.1%}", f"{b['single']:.1%}"),
        (
            "the longest",
            *(", ".join(f"{term} ({n})" for term, n in list(one["longest"].items())[:2]) for one in (a, b)),
        ),
    ]
    return ["", count_of(a["terms"], "term"), *columns(rows)]


def _tokens(facts: Mapping[str, Any]) -> list[str]:
    if "tokens" not in facts:
        return []
    a, b = facts["tokens"]
    rows = [("", "A", "B"), *((title, f"{a[key]:,}", f"{b[key]:,}") for key, title in _TOKENS.items())]
    lines = ["", "tokens of text", *columns(rows, right=(1, 2))]
    for name, one in (("A", a), ("B", b)):
        if one["unreachable_tokens"]:
            lines.append(f"  {name}: {', '.join(one['unreachable_tokens'][:_NAMED])}")
    return lines


def _undertrained(facts: Mapping[str, Any]) -> list[str]:
    if "undertrained" not in facts:
        return []
    lines = ["", "tokens that the models have hardly been trained on"]
    for name, one in zip(("A", "B"), facts["undertrained"], strict=True):
        unused = count_of(one["unused"], "unused row")
        by = f"{one['indicator']} of {'tied' if one['tied'] else 'input'} embeddings, {unused}"
        lines.append(f"  {name}: {one['count']:,} (by {by}) {', '.join(one['tokens'][:_NAMED])}".rstrip())
    return lines
