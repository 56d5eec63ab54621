"""What a verification finds: a list of checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokswap.report.wording import listed


@dataclass(frozen=True)
class Check:
    """One invariant.

    Attributes:
        name: Its name.
        ok: Whether it holds.
        detail: What was found.
    """

    name: str
    ok: bool
    detail: str


def check_empty(name: str, problem: str, items: Sequence[object], fine: str) -> Check:
    """Return a check that holds if a list of problems is empty.

    Args:
        name: Name of the check.
        problem: What is wrong with the items.
        items: The items that something is wrong with; the first few are shown.
        fine: What to say if there are none.
    """
    return Check(name, not items, f"{problem}: {listed(items)}" if items else fine)
