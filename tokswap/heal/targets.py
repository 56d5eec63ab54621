"""Targets of training on a disk: computed once by the teacher, memory-mapped, and continued where a run was killed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tokswap.errors import OutputError
from tokswap.heal.project import Pieces, Targets, project
from tokswap.heal.teacher import Read
from tokswap.heal.team import Team
from tokswap.heal.text import Passage
from tokswap.storage.atomic import CACHE, allocate, check_room, write_error

KEEP = 64
"""Targets that are kept of each token."""
_FORMAT = b"3"


@dataclass(frozen=True)
class TargetStore:
    """The targets of every student token of some passages.

    Attributes:
        start: The first token of each passage, int64 [n + 1].
        ids: Student ids, int32 [tokens, KEEP].
        probabilities: Their probabilities, float16 [tokens, KEEP].
        done: 0 for passages without targets; for others 1 to 255, by the share of tokens that the teacher has told,
            uint8 [n].
        folder: Where they are; a copy in another process opens it again.
    """

    start: np.ndarray
    ids: np.ndarray
    probabilities: np.ndarray
    done: np.ndarray
    folder: Path

    @classmethod
    def open(cls, folder: Path, passages: Sequence[Passage]) -> TargetStore:
        """Open the targets in a folder, or make room for them.

        Raises:
            OutputError: disk-full, cannot-write.
        """
        start = np.zeros(len(passages) + 1, np.int64)
        np.cumsum([len(passage.student.ids) for passage in passages], out=start[1:])
        return cls._at(folder, start)

    @classmethod
    def _at(cls, folder: Path, start: np.ndarray) -> TargetStore:
        shape = (int(start[-1]), KEEP)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "done").is_file():
                check_room(folder / "ids", shape[0] * KEEP * 6, CACHE)
            ids, probabilities, done = (
                _mapped(folder / name, dtype, of)
                for name, dtype, of in (
                    ("ids", np.int32, shape),
                    ("probabilities", np.float16, shape),
                    ("done", np.uint8, (len(start) - 1,)),
                )
            )
        except OSError as error:
            raise write_error(error, folder, CACHE) from error
        return cls(start, ids, probabilities=probabilities, done=done, folder=folder)

    def __reduce__(self) -> tuple[object, ...]:
        return TargetStore._at, (self.folder, self.start)

    def of(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the targets of a passage: ids int64 [m, KEEP], 0 where there are fewer, and probabilities, float32."""
        part = slice(self.start[n], self.start[n + 1])
        return np.maximum(self.ids[part], 0).astype(np.int64), self.probabilities[part].astype(np.float32)

    def put(self, n: int, targets: Targets) -> None:
        """Keep the targets of a passage."""
        part = slice(self.start[n], self.start[n + 1])
        self.ids[part], self.probabilities[part] = targets.ids, targets.probabilities
        self.done[n] = 1 + round(254 * float(targets.projected.mean()))

    @property
    def told(self) -> float:
        """The share of the tokens whose targets are from the teacher; the others have the real token."""
        shares = (self.done.astype(np.float64) - 1) / 254
        return float((shares * np.diff(self.start)).sum() / max(self.start[-1], 1))


def store_targets(
    store: TargetStore,
    passages: Sequence[Passage],
    read: Callable[[Collection[int]], Iterable[Read]],
    pieces: Pieces,
    team: Team,
) -> None:
    """Compute the targets that are not there yet.

    Args:
        store: Where they go.
        passages: The passages.
        read: Lets the teacher read some passages; yields a `Read` for each, and maybe for others.
        pieces: What the student's tokenizer makes of each teacher token.
        team: The processes that read together; the leader stores.
    """
    for found in read(team.shared(set(np.flatnonzero(store.done == 0).tolist()))):
        if not team.leads:
            continue
        passage = passages[found.index]
        targets = project(
            passage.teacher, passage.student, (found.ids, found.probabilities), pieces, keep=store.ids.shape[1]
        )
        store.put(found.index, targets)


def targets_key(teacher: str, passages: Sequence[Passage], *settings: object) -> str:
    """Return a name for the targets of these passages, another one where anything differs that decides them.

    Args:
        teacher: What tells the teacher from others.
        passages: The passages.
        settings: What else decides the targets.
    """
    found = hashlib.sha256(_FORMAT + repr((teacher, settings)).encode())
    for passage in passages:
        for side in (passage.teacher, passage.student):
            found.update(side.ids.tobytes())
            found.update(side.bounds.tobytes())
    return found.hexdigest()[:20]


def _mapped(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if path.is_file() and path.stat().st_size != size:
        raise OutputError("cannot-write", "a file of the cache is damaged", "remove its folder", file=path)
    mapped = np.memmap(path, dtype, "r+" if path.is_file() else "w+", shape=shape)
    allocate(path)
    return mapped
