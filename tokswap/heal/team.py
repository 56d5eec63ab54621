"""The processes of one healing, as `accelerate launch` starts them: one by itself, or several that share each step."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

_PATIENCE = timedelta(days=2)
"""How long processes wait for one another: the leader may read and write text for hours."""

T = TypeVar("T")


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

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            self.state().wait_for_everyone()

    def shared(self, value: T) -> T:
        """Return the value of the leader in every process. It is pickled; the values of the others do not matter."""
        if self.size == 1:
            return value
        from accelerate.utils import broadcast_object_list

        self.state()
        found: T = broadcast_object_list([value])[0]
        return found

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let one process after the other do something."""
        for _ in range(self.rank):
            self.wait()
        yield
        for _ in range(self.rank, self.size):
            self.wait()

    def state(self) -> Any:
        """Return what accelerate knows of the processes; the first call connects them."""
        from accelerate import PartialState

        return PartialState(cpu=self.cpu, timeout=_PATIENCE, **({"backend": "gloo"} if self.cpu else {}))
