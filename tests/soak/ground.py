"""Where commands run into trouble: folders for their inputs and outputs, and what an undisturbed run gives."""

from __future__ import annotations

import multiprocessing
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soak.child import start
from soak.commands import Command, leftovers, make_sources, state

_PATIENCE = 120.0
_MOMENT = 0.0005
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["soak.preloaded"])


@dataclass
class Outcome:
    """The outcome of one kind of trouble for one command.

    Attributes:
        kind: The kind of trouble.
        command: Name of the command.
        counts: What happened, and how often.
        troubles: What must not happen and did.
    """

    kind: str
    command: str
    counts: Counter[str] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)

    def expect(self, holds: bool, what: str) -> None:
        """Add `what` to the troubles unless `holds`."""
        if not holds:
            self.troubles.append(what)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {"kind": self.kind, "command": self.command, **self.counts, "troubles": self.troubles}


@dataclass(frozen=True)
class Reference:
    """A run that nothing disturbs.

    Attributes:
        old: State of the output before, see `state`.
        new: State of the output after.
        seconds: How long it takes.
        writing: Seconds until its temporary files appear.
        size: Bytes of the output.
    """

    old: dict[str, str] | None
    new: dict[str, str] | None
    seconds: float
    writing: float
    size: int


class Ground:
    """The folders in which commands run.

    root/src holds the inputs. Commands write to root/work, root/home and root/cache.
    """

    def __init__(self, root: Path, megabytes: int = 4) -> None:
        self.root = root.resolve()
        make_sources(self.root, megabytes)
        self.sources = self._sources()
        self.said = self.root / "said"
        self.references: dict[str, Reference] = {}
        self.environment = {"TOKSWAP_HOME": str(self.root / "home"), "TOKSWAP_CACHE": str(self.root / "cache")}

    def _sources(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted((self.root / "src").rglob("*")) if path.is_file()}

    def intact(self) -> bool:
        """Return whether no input has changed."""
        return self._sources() == self.sources

    def clear(self, command: Command) -> None:
        """Restore the state before the command: no output, or the one that `before` has made."""
        for name in ("work", "home", "cache"):
            shutil.rmtree(self.root / name, ignore_errors=True)
            (self.root / name).mkdir()
        kept = self.kept_output(command)
        if kept.exists():
            (shutil.copytree if kept.is_dir() else shutil.copyfile)(kept, self.root / command.out)

    def kept_output(self, command: Command) -> Path:
        """Return where the output of `before` is kept."""
        return self.root / "kept" / command.name / Path(command.out).name

    def launch(self, arguments: Sequence[str], said: Path | None = None) -> Any:
        """Start a command, and return its process when it begins."""
        ready = FORK.Event()
        process = FORK.Process(
            target=start, args=(tuple(arguments), self.root / "work", said or self.said, self.environment, ready)
        )
        process.start()
        assert ready.wait(_PATIENCE), "a child did not start"
        return process

    def run(self, arguments: Sequence[str]) -> int:
        """Run a command to its end, and return its exit status."""
        return self.end(self.launch(arguments))

    def end(self, process: Any) -> int:
        """Wait for a process, and return its exit status. A process that hangs is killed and raises."""
        process.join(_PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()
            raise AssertionError("a command hangs: " + self.words())
        return int(process.exitcode)

    def words(self, said: Path | None = None) -> str:
        """Return what a command has printed."""
        return (said or self.said).read_text("utf-8", "replace")

    def reference(self, command: Command) -> Reference:
        """Return an undisturbed run of a command. It runs only once."""
        if command.name not in self.references:
            old = None
            shutil.rmtree(self.kept_output(command).parent, ignore_errors=True)
            if command.before:
                self.clear(command)
                assert self.run(command.before) == 0, self.words()
                old = state(self.root / command.out)
                self.kept_output(command).parent.mkdir(parents=True)
                (self.root / command.out).rename(self.kept_output(command))
            self.clear(command)
            process, begin = self.launch(command.arguments), time.perf_counter()
            seen = self.wait_for_writing(command, process)
            writing = time.perf_counter() - begin if seen else 0.0
            assert self.end(process) == 0, self.words()
            seconds = time.perf_counter() - begin
            out = self.root / command.out
            size = sum(p.stat().st_size for p in (out.rglob("*") if out.is_dir() else [out]) if p.is_file())
            self.references[command.name] = Reference(
                old=old, new=state(out), seconds=seconds, writing=writing, size=size
            )
        return self.references[command.name]

    def wait_for_writing(self, command: Command, process: Any) -> bool:
        """Wait until a command writes. Return whether it has written anything before its end."""
        before = set(leftovers(command, self.root))
        while process.is_alive():
            if any(path not in before for path in leftovers(command, self.root)):
                return True
            time.sleep(_MOMENT)
        return False

    def look(self, command: Command, outcome: Outcome, what: str) -> None:
        """Expect the old output or the whole new one, and unchanged inputs."""
        reference, now = self.reference(command), state(self.root / command.out)
        if not command.stages:
            outcome.expect(now in (reference.old, reference.new), f"{what}: half-written output")
        elif now and "config.json" in now:
            outcome.expect(
                self.run(("hypernet", "info", "out")) == 0, f"{what}: the network cannot be read: {self.words()[-300:]}"
            )
        outcome.expect(self.intact(), f"{what}: an input was changed")

    def recover(self, command: Command, outcome: Outcome, what: str) -> None:
        """Run the command again, and expect the whole output and no leftovers."""
        reference = self.reference(command)
        if state(self.root / command.out) != reference.new or command.replaces or command.again:
            status = self.run(command.again or command.arguments)
            outcome.expect(status == 0, f"{what}: the next run fails with {status}: {self.words()[-400:]}")
        outcome.expect(state(self.root / command.out) == reference.new, f"{what}: the next run gives another result")
        left = leftovers(command, self.root)
        outcome.expect(not left, f"{what}: the next run leaves {left[:1]}")
        outcome.counts["recovered"] += 1
