"""Checks that a trim keeps the tokens of the texts that it counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from tokswap.errors import count_of
from tokswap.evaluation.checks import Check, check_empty
from tokswap.evaluation.verify.folder import Folder
from tokswap.evaluation.verify.reference import Reference

_CHARACTERS, _EDGE = 1_000_000, 32
"""Of a long file the beginning is read, and the last tokens of that do not count: the text goes on."""
_PLAIN = ("", ".txt", ".md", ".py")


def corpus_check(folder: Folder, reference: Reference, plan: Mapping[str, Any]) -> Iterator[Check]:
    """Tokenize the texts that a trim counted, whole, where their files are still there and plain text.

    Args:
        folder: The result.
        reference: Its source.
        plan: What was planned. A trim to a number of rows may lack tokens of its texts; others may not.
    """
    options = plan.get("options", {})
    whole = (
        not reference.folder.reads_pages
        and options.get("min_count", 1) == 1
        and not (options.get("target_size") or options.get("coverage"))
    )
    wrong, read = [], []
    for path, size in _files(plan):
        text = path.read_text(encoding="utf-8", errors="replace")[:_CHARACTERS]
        ids = reference.folder.encode(text)
        edge = len(ids) - _EDGE if path.stat().st_size > len(text.encode()) else len(ids)
        missing = {token for token in ids[:edge] if reference.new(token) is None and not reference.may_lack(token)}
        expected = reference.translate(ids[:edge])
        if expected is not None and folder.encode(text)[:edge] != expected:
            same = len(
                list(takewhile(lambda pair: pair[0] == pair[1], zip(folder.encode(text), expected, strict=False)))
            )
            wrong.append(f"{path.name}, from token {same:,}")
        elif missing and whole:
            lost = reference.folder.tokenizer.convert_ids_to_tokens(sorted(missing)[:3])
            wrong.append(f"{path.name} needs {lost}")
        read.append(f"{count_of(size, 'byte')} of {path.name}")
    if read:
        yield check_empty("trimmed texts", "tokenized differently", wrong, ", ".join(read))


def _files(plan: Mapping[str, Any]) -> Iterator[tuple[Path, int]]:
    """The plain texts that were counted and have not changed their size since."""
    for corpus in plan.get("corpora") or ():
        path = Path(str(corpus["name"]))
        if path.suffix in _PLAIN and path.is_file() and path.stat().st_size == corpus["bytes"]:
            yield path, corpus["bytes"]
