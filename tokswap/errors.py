"""Every error that tokswap raises on purpose.

    TokswapError            base: a stable code, what happened, where, and how to fix it
    ├── UsageError          the request itself is wrong (exit status 2)
    ├── InputError          a model, tokenizer or text cannot be used (exit status 1)
    ├── OutputError         the result cannot be written (exit status 1)
    └── ClusterError        the machines of a cluster cannot be used (exit status 1)

Codes are stable: scripts and `docs/errors.md` refer to them. This module imports nothing from tokswap.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import partial
from typing import Any


class TokswapError(Exception):
    """Report something that a person can fix.

    Args:
        code: A stable name for this kind of error.
        message: What happened.
        hint: How to fix it; empty where nothing can be said.
        **where: The files or values that the error is about. Underscores in names print as spaces.

    Attributes:
        exit_status: The exit status of the command line.
    """

    exit_status = 1

    def __init__(self, code: str, message: str, hint: str = "", **where: object) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.where = {name.replace("_", " "): str(value) for name, value in where.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle every field, so that an error of another process is the same error here."""
        return partial(type(self), self.code, self.message, self.hint, **self.where), ()

    def __str__(self) -> str:
        lines = [f"{self.message}  [{self.code}]"]
        lines += [f"  {name}: {value}" for name, value in self.where.items()]
        if self.hint:
            lines += ["", f"hint: {self.hint}"]
        return "\n".join(lines)


class UsageError(TokswapError):
    """The request is wrong, whatever the files contain: an unknown method, or two options that conflict."""

    exit_status = 2


class InputError(TokswapError):
    """A model, tokenizer or text is missing, damaged or not supported."""


class OutputError(TokswapError):
    """The result cannot be written, or would replace something that must stay."""


class ClusterError(TokswapError):
    """The machines of a cluster cannot be reached, were lost, or run different software."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Suggest the closest known word.

    Args:
        word: What the user typed.
        known: The words that would be right.

    Returns:
        ". Did you mean `x`?", or an empty string if no word is close.
    """
    by_folded = {one.casefold(): one for one in known}
    close = difflib.get_close_matches(word.casefold(), list(by_folded), n=1, cutoff=0.5)
    return f". Did you mean `{by_folded[close[0]]}`?" if close else ""


def count_of(number: int, thing: str, several: str = "") -> str:
    """Count things in a sentence: "1 row", "2,000 rows".

    Args:
        number: How many there are.
        thing: What one of them is called.
        several: What several are called, `thing` with an s by default.
    """
    return f"{number:,} {thing if number == 1 else several or thing + 's'}"
