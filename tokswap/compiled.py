"""Functions that numba compiles, and keeps on disk where it can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def kept_njit(*, parallel: bool = False, fastmath: bool | set[str] = False) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function once, and once for each process where nothing can be kept.

    numba keeps what it has compiled beside the package, or in the home folder. In a container, both may be read-only.

    Args:
        parallel: Whether it runs on several threads, see numba.
        fastmath: What the compiler may change about floats, see numba.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        try:
            return njit(cache=True, parallel=parallel, fastmath=fastmath)(function)
        except RuntimeError:  # numba raises it for want of a folder
            return njit(parallel=parallel, fastmath=fastmath)(function)

    return compiled
