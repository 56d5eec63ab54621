"""Long texts in windows that together are tokenized as the whole text is.

A tokenizer treats the beginning of a text in its own way, and a token can span any two characters. So a window ends
only where no token spans the edge, which is tried on the characters around it, and it is tokenized with the
characters before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from tokswap.tokenizer.tokenizer import Tokenizer

_SIZE = 16_384
"""Characters of a window, where an edge follows soon."""
_MOST = 64 * _SIZE
"""Characters after which a window ends at any edge."""
_AROUND = 100
"""Characters on both sides of an edge that decide whether a token spans it."""
_TRIES = 8
"""Edges of a kind that are tried in each stretch of text."""
_EDGES = (re.compile(r"(?<=\w)(?=\s)"), re.compile(r"(?<=\w)(?=\W)|(?<=\W)(?=\w)"))
"""Where tokens end, the likeliest places first: after a word, and between words and signs."""


class Window(NamedTuple):
    """A part of a text.

    Attributes:
        text: The part itself.
        before: The characters before it that it is tokenized with, "" at the beginning of a text.
    """

    text: str
    before: str = ""

    @property
    def whole(self) -> str:
        """The characters before it, and the part itself."""
        return self.before + self.text


def windows(parts: Iterable[tuple[str, bool]], tokenizer: Tokenizer) -> Iterator[Window]:
    """Split texts into windows.

    Args:
        parts: Parts of texts, and whether each is the last of its text.
        tokenizer: What must tokenize the windows as it does the texts.
    """
    text, before = "", ""
    for part, is_last in parts:
        text, start = text + part, 0
        while edge := _next_edge(text, start, tokenizer):
            yield Window(text[start : edge.at], before)
            start, before = edge
        text = text[start:]
        if is_last:
            if text:
                yield Window(text, before)
            text, before = "", ""


def encode_windows(tokenizer: Tokenizer, found: Sequence[Window]) -> list[list[int]]:
    """Return the ids of each window, as they are in its text."""
    return in_place(tokenizer, tokenizer.encode_batch([window.whole for window in found]), found)


def in_place(tokenizer: Tokenizer, rows: Sequence[list[int]], found: Sequence[Window]) -> list[list[int]]:
    """Return the ids of each window from those of its `whole`."""
    before = tokenizer.encode_batch([window.before for window in found])
    return [row[len(skipped) :] for row, skipped in zip(rows, before, strict=True)]


class _Edge(NamedTuple):
    """Where a window ends, and the characters before that place that the next one is tokenized with."""

    at: int
    before: str


def _next_edge(text: str, start: int, tokenizer: Tokenizer) -> _Edge | None:
    """Find the end of the window that begins at `start`; None if more text is needed to know it."""
    size = _SIZE
    while start + 2 * size + _AROUND <= len(text):
        for kind in _EDGES:
            for match in islice(kind.finditer(text, start + size, start + 2 * size), _TRIES):
                at = match.start()
                before = text[max(at - _AROUND, 0) : at]
                alone, both = tokenizer.encode(before), tokenizer.encode(before + text[at : at + _AROUND])
                if both[: len(alone)] == alone:
                    return _Edge(at, before)
        size *= 2
        if size >= _MOST:
            return _Edge(start + size, "")
    return None
