"""How figures and reasons are said, on the terminal and on the report page alike. Pure."""

from __future__ import annotations

from collections.abc import Sequence

COVERAGE = {
    "bytes": "copied, the same bytes",
    "role": "copied, the same role",
    "text": "copied, control token of the same name",
    "preset": "copied, chat marker of the same purpose",
    "map": "copied, as --map-token says",
    "missing": "made by {method}",
    "neutral": "control tokens the model lacks, never predicted",
    "padding": "padding, never predicted",
}
"""Why a row of a transplant is what it is."""

KEPT = {
    "observed": "used by the text",
    "forced": "control tokens, bytes, and what was named to be kept",
    "scaffold": "what other kept tokens are made from",
    "padding": "padding, never predicted",
}
"""Why a trim has a row."""

PARTS = {
    "missing": "missing tokens",
    "after": "the token after one",
    "shared": "shared tokens",
    "recut": "shared, cut otherwise",
    "alike": "shared, cut as before",
}
"""Where a loss sits; see `breakdown`."""


def size(count: float) -> str:
    """Return bytes for people: 1.2 GB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}" if count < 999.5 * factor else f"{count / factor:,.0f} {unit}"
    return f"{count:.0f} bytes"


def duration(seconds: float) -> str:
    """Return a time for people: 2 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def quoted(surface: bytes | str, most: int = 32) -> str:
    """Return a piece of text in quotes, with what cannot be seen escaped, and shortened at its end."""
    try:
        shown = repr(surface.decode("utf-8") if isinstance(surface, bytes) else surface)
    except UnicodeDecodeError:
        shown = repr(surface)
    return shown if len(shown) <= most else f"{shown[: most - 4]}...{shown[-1]}"


def listed(items: Sequence[object], most: int = 5) -> str:
    """Return the first few items of a list, and how many more there are."""
    more = f", ... and {len(items) - most:,} more" if len(items) > most else ""
    return ", ".join(map(str, items[:most])) + more
