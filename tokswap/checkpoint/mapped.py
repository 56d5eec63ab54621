"""Files that are mapped into memory, and how their pages are given back."""

from __future__ import annotations

import contextlib
import mmap

import numpy as np


def release(rows: np.ndarray) -> None:
    """Let the system take back what has been read of a mapped file; other arrays stay as they are.

    What is read again comes from the file, as a rule from the system's cache of it.

    Args:
        rows: An array, or a view of one.
    """
    base: object = rows
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        with contextlib.suppress(OSError, ValueError):  # a file system may refuse; then the pages stay
            base.madvise(mmap.MADV_DONTNEED)
