"""Gives memory back to the system during a healing.

The C library keeps freed blocks for itself. Activations of passages of different sizes leave holes in its heap, which
grows to several times of what is in use: 6 GB in place of 3 GB on the demo pair. Giving the holes back takes a walk
through the heap, and a heap of millions of small pieces takes longer than the step of a tiny model.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

from tokswap.evaluation.evaluate import release

_ROOM = 200_000_000
"""Bytes that the process may grow by before the heap is trimmed."""


class Heap:
    """Trims the heap where the process has grown since the last time."""

    def __init__(self) -> None:
        self._before = _resident()

    def trim(self) -> None:
        """Give free pages back if there may be many."""
        if _resident() > self._before + _ROOM:
            trim_heap()
            self._before = _resident()


def trim_heap() -> None:
    """Give the free pages of the heap back."""
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def give_back(device: str) -> None:
    """Free objects that are no longer used, and give their memory back. device: where torch computes."""
    release(device)
    trim_heap()


def _resident() -> int:
    """Bytes of memory that the process holds; 0 where Linux does not say it."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
