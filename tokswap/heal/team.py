"""The processes of one healing, as `accelerate launch` starts them: one by itself, or several that share each step."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Team:
    """The place of this process among those of a healing.

    Attributes:
        rank: Its number, 0 for the one that reads with the teacher, saves and writes.
        size: How many there are.
        cpu: Whether they compute on processors.
    """

    rank: int = 0
    size: int = 1
    cpu: bool = True

    @classmethod
    def of(cls, device: str) -> Team:
        """Return the team that the launcher has set up. device: where torch computes."""
        rank, size = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
        return cls(rank, size, device == "cpu")

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    @contextlib.contextmanager
    def leader_first(self) -> Iterator[None]:
        """Let the leader do something before all others do it."""
        if self.size == 1:
            yield
            return
        with self._state().main_process_first():
            yield

    def _state(self) -> Any:
        from accelerate import PartialState

        return PartialState(cpu=self.cpu, **({"backend": "gloo"} if self.cpu else {}))
