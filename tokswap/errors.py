"""Every error that tokswap raises on purpose.

    TokswapError            base: a stable code, what happened, where, and how to fix it
    ├── UsageError          the request itself is wrong (exit status 2)
    ├── InputError          a model, tokenizer or text cannot be used (exit status 1)
    ├── OutputError         the result cannot be written (exit status 1)
    └── ClusterError        the machines that a run is spread over cannot be used (exit status 1)

The code is the stable part: scripts and `docs/errors.md` refer to it. This module imports nothing from tokswap.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import partial
from typing import Any


class TokswapError(Exception):
    """Something a person can act on: `code` is stable, `where` names files or values, `hint` says what to do."""

    exit_status = 1

    def __init__(self, code: str, message: str, hint: str = "", **where: object) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.where = {name.replace("_", " "): str(value) for name, value in where.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        """Come through a pickle whole, so that the error of another process is the same one here."""
        return partial(type(self), self.code, self.message, self.hint, **self.where), ()

    def __str__(self) -> str:
        lines = [f"{self.message}  [{self.code}]"]
        lines += [f"  {name}: {value}" for name, value in self.where.items()]
        if self.hint:
            lines += ["", f"hint: {self.hint}"]
        return "\n".join(lines)


class UsageError(TokswapError):
    """The request is wrong whatever the files hold: an unknown method, a flag that conflicts with another."""

    exit_status = 2


class InputError(TokswapError):
    """A model, tokenizer or text is missing, damaged or of a kind that tokswap does not take."""


class OutputError(TokswapError):
    """The result cannot be written, or must not be written over what is there."""


class ClusterError(TokswapError):
    """The machines that a run is spread over cannot be reached, were lost, or are not alike."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean `x`?" for the closest known word, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean `{close[0]}`?" if close else ""
