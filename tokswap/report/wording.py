"""The words for figures and reasons, on the terminal, on report pages and in model cards alike."""

from __future__ import annotations

from collections.abc import Sequence

COVERAGE = {
    "bytes": "copied, same bytes",
    "role": "copied, same role",
    "text": "copied, special token of the same name",
    "preset": "copied, chat marker of the same purpose",
    "map": "copied, named by --map-token",
    "missing": "initialised by {method}",
    "neutral": "special tokens that the model lacks, never predicted",
    "unreachable": "ids that the tokenizer never produces, never predicted",
    "padding": "padding rows, never predicted",
}
"""Why a transplant copies or initialises a row, by the name of the reason in the report."""

KEPT = {
    "observed": "used by the text",
    "forced": "special tokens, bytes, and tokens that options name",
    "scaffold": "merge dependencies: other kept tokens are built from them",
    "padding": "padding rows, never predicted",
}
"""Why a trim keeps a row, by the name of the reason in the report."""

PARTS = {
    "missing": "missing tokens",
    "after": "the token after one",
    "shared": "shared tokens",
    "recut": "shared, tokenized differently",
    "alike": "shared, tokenized as before",
}
"""The kinds of tokens that a loss is divided among; see `evaluation.breakdown`."""

_LONGEST = 32
"""Characters of a quoted text, with its quotes."""


def size(count: float) -> str:
    """Format a number of bytes for people.

    Args:
        count: Bytes.

    Returns:
        Such as "1.2 GB".
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}" if count < 999.5 * factor else f"{count / factor:,.0f} {unit}"
    return f"{count:.0f} bytes"


def share(part: float) -> str:
    """Format a share for people, with two digits.

    Args:
        part: From 0 to 1.

    Returns:
        Such as "2.3 %".
    """
    value = 100 * part
    if 0 < value < 0.001:
        return "under 0.001 %"
    return f"{value:.2g} %" if value < 99.5 else f"{value:.0f} %"


def duration(seconds: float) -> str:
    """Format a time for people.

    Args:
        seconds: Seconds.

    Returns:
        Such as "2 min".
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def quoted(text: bytes | str) -> str:
    """Quote a piece of text, shortened at its end where it is long.

    Args:
        text: Characters, or token bytes.

    Returns:
        The text in quotes, with invisible characters escaped.
    """
    try:
        shown = repr(text.decode("utf-8") if isinstance(text, bytes) else text)
    except UnicodeDecodeError:
        shown = repr(text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 4]}...{shown[-1]}"


def listed(items: Sequence[object], most: int = 5) -> str:
    """List the first few items.

    Args:
        items: All of them.
        most: How many to show.

    Returns:
        The first items, and how many more there are.
    """
    more = f", ... and {len(items) - most:,} more" if len(items) > most else ""
    return ", ".join(map(str, items[:most])) + more
