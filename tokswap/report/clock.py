"""How long the stages of a run take, and how far it is."""

from __future__ import annotations

import time
from typing import Any


class Clock:
    """Measures the stages of a run."""

    def __init__(self) -> None:
        self._begin = self._last = time.perf_counter()
        self._stages: dict[str, float] = {}

    def stop(self, stage: str) -> None:
        """End a stage that began where the one before it ended."""
        now = time.perf_counter()
        self._stages[stage] = now - self._last
        self._last = now

    def add(self, stage: str, seconds: float) -> None:
        """Add a stage that was measured elsewhere."""
        self._stages[stage] = seconds

    def end(self, rest: str | None = None) -> None:
        """End the run. rest: the stage that all other time belongs to."""
        total = time.perf_counter() - self._begin
        if rest is not None:
            self._stages[rest] = total - sum(self._stages.values())
        self._stages["all"] = total

    @property
    def seconds(self) -> dict[str, float]:
        """Stage -> seconds."""
        return {stage: round(value, 3) for stage, value in self._stages.items()}


def progress_bar(total: int, *, show: bool) -> Any:
    """Return a progress bar that counts the bytes written; it draws on a terminal only."""
    from tqdm.auto import tqdm

    return tqdm(total=total, desc="write", unit="B", unit_scale=True, disable=None if show else True)
