"""Run every command that writes into trouble, and look at what is left: `kills`, `full_disk`, `read_only` and the others.

Each starts children that are forked from one process which has imported everything, so that a run takes as long as its work.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from soak.child import TRACE, start, start_on
from soak.commands import Command, leftovers, make_sources, state

_PATIENCE = 120.0
_MOMENT = 0.0005
_FORK = multiprocessing.get_context("forkserver")
_FORK.set_forkserver_preload(["soak.preloaded"])


@dataclass
class Outcome:
    """What came of a kind of trouble for one command. counts: what happened how often. troubles: what must not happen."""

    kind: str
    command: str
    counts: Counter[str] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)

    def expect(self, holds: bool, what: str) -> None:
        """Note a trouble unless something holds."""
        if not holds:
            self.troubles.append(what)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {"kind": self.kind, "command": self.command, **self.counts, "troubles": self.troubles}


@dataclass(frozen=True)
class Reference:
    """A run that nothing disturbs. seconds: it takes; writing: when its temporary files appear. size: bytes of the result."""

    old: dict[str, str] | None
    new: dict[str, str] | None
    seconds: float
    writing: float
    size: int


class Ground:
    """root/src holds the inputs; root/work, root/home and root/cache are where commands write."""

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
        """Return whether every input is what it was, bit for bit."""
        return self._sources() == self.sources

    def clear(self, command: Command) -> None:
        """Put everything as it was before the command: nothing, or what `before` has made."""
        for name in ("work", "home", "cache"):
            shutil.rmtree(self.root / name, ignore_errors=True)
            (self.root / name).mkdir()
        kept = self._kept(command)
        if kept.exists():
            (shutil.copytree if kept.is_dir() else shutil.copyfile)(kept, self.root / command.out)

    def _kept(self, command: Command) -> Path:
        return self.root / "kept" / command.name / Path(command.out).name

    def launch(self, arguments: Sequence[str], said: Path | None = None) -> Any:
        """Start a command. Returns its process once it is about to begin."""
        ready = _FORK.Event()
        process = _FORK.Process(
            target=start, args=(tuple(arguments), self.root / "work", said or self.said, self.environment, ready)
        )
        process.start()
        assert ready.wait(_PATIENCE), "a child did not start"
        return process

    def run(self, arguments: Sequence[str]) -> int:
        """Run a command to its end. Returns its exit status."""
        return self.end(self.launch(arguments))

    def end(self, process: Any) -> int:
        """Wait for a process; one that hangs is killed. Returns its exit status."""
        process.join(_PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()
            raise AssertionError("a command hangs: " + self.words())
        return int(process.exitcode)

    def words(self, said: Path | None = None) -> str:
        """Return what a command has said."""
        return (said or self.said).read_text("utf-8", "replace")

    def reference(self, command: Command) -> Reference:
        """Run a command undisturbed, once."""
        if command.name not in self.references:
            old = None
            shutil.rmtree(self._kept(command).parent, ignore_errors=True)
            if command.before:
                self.clear(command)
                assert self.run(command.before) == 0, self.words()
                old = state(self.root / command.out)
                self._kept(command).parent.mkdir(parents=True)
                (self.root / command.out).rename(self._kept(command))
            self.clear(command)
            process, begin = self.launch(command.arguments), time.perf_counter()
            seen = self.wait_for_writing(command, process)
            writing = time.perf_counter() - begin if seen else 0.0
            assert self.end(process) == 0, self.words()
            seconds = time.perf_counter() - begin
            out = self.root / command.out
            size = sum(p.stat().st_size for p in (out.rglob("*") if out.is_dir() else [out]) if p.is_file())
            self.references[command.name] = Reference(old, state(out), seconds, writing, size)
        return self.references[command.name]

    def wait_for_writing(self, command: Command, process: Any) -> bool:
        """Wait until a command has begun to write. Returns whether it did before its end."""
        before = set(leftovers(command, self.root))
        while process.is_alive():
            if any(path not in before for path in leftovers(command, self.root)):
                return True
            time.sleep(_MOMENT)
        return False

    def look(self, command: Command, outcome: Outcome, what: str) -> None:
        """Expect that the output is as before or whole, and the inputs are intact."""
        reference, now = self.reference(command), state(self.root / command.out)
        if not command.stages:
            outcome.expect(now in (reference.old, reference.new), f"{what}: half-written output")
        elif now and "config.json" in now:
            outcome.expect(
                self.run(("hypernet", "info", "out")) == 0, f"{what}: the network cannot be read: {self.words()[-300:]}"
            )
        outcome.expect(self.intact(), f"{what}: an input was changed")

    def recover(self, command: Command, outcome: Outcome, what: str) -> None:
        """Run the command again, and expect the whole result and nothing beside it."""
        reference = self.reference(command)
        if state(self.root / command.out) != reference.new or command.replaces or command.again:
            status = self.run(command.again or command.arguments)
            outcome.expect(status == 0, f"{what}: the next run fails with {status}: {self.words()[-400:]}")
        outcome.expect(state(self.root / command.out) == reference.new, f"{what}: the next run gives another result")
        left = leftovers(command, self.root)
        outcome.expect(not left, f"{what}: the next run leaves {left[:1]}")
        outcome.counts["recovered"] += 1


def kills(ground: Ground, command: Command, times: int, seed: int) -> Outcome:
    """kill -9: half of them at any moment of a run, half while it writes."""
    outcome, random = Outcome("kill -9", command.name), Random(f"{seed} {command.name}")
    reference = ground.reference(command)
    for n in range(2 * times):  # a run may be over before it is killed: try again, but not for ever
        if outcome.counts["kills"] == times:
            break
        ground.clear(command)
        process = ground.launch(command.arguments)
        if n % 2:
            ground.wait_for_writing(command, process)
            time.sleep(random.uniform(0, 1) ** 2 * max(reference.seconds - reference.writing, 0.01))
        else:
            time.sleep(random.uniform(0, reference.seconds))
        process.kill()
        process.join()
        killed = process.exitcode == -signal.SIGKILL
        outcome.counts["kills"] += killed
        outcome.counts["ended before"] += not killed
        outcome.counts["while writing"] += killed and bool(leftovers(command, ground.root))
        outcome.counts["left whole"] += state(ground.root / command.out) == reference.new
        what = f"kill {n}"
        ground.look(command, outcome, what)
        ground.recover(command, outcome, what)
    return outcome


def signals(ground: Ground, command: Command, times: int, seed: int) -> Outcome:
    """SIGINT and SIGTERM in turn, at any moment: a clean message, the usual exit status, nothing left."""
    outcome, random = Outcome("SIGINT, SIGTERM", command.name), Random(f"{seed} {command.name}")
    reference = ground.reference(command)
    for n in range(times):
        ground.clear(command)
        number = (signal.SIGINT, signal.SIGTERM)[n % 2]
        process = ground.launch(command.arguments)
        time.sleep(0.01 + random.uniform(0, reference.seconds))
        if process.is_alive():
            os.kill(process.pid, number)
        status, what = ground.end(process), f"{number.name} {n}"
        stopped = status == 128 + number
        # Before the command has begun, Python and click answer; nothing has been written then.
        early = status == -number or (status == 1 and "Aborted!" in ground.words())
        early = early and state(ground.root / command.out) == reference.old
        outcome.counts["sent"] += 1
        outcome.counts["stopped"] += stopped
        outcome.counts["before it began"] += early
        outcome.expect(stopped or early or status == 0, f"{what}: exit status {status}: {ground.words()[-500:]}")
        outcome.expect("Traceback" not in ground.words(), f"{what}: a traceback: {ground.words()[-500:]}")
        if stopped:
            outcome.expect("interrupted" in ground.words(), f"{what}: no message: {ground.words()[-300:]}")
        if not command.stages:
            outcome.expect(not leftovers(command, ground.root), f"{what}: leaves {leftovers(command, ground.root)[:1]}")
        ground.look(command, outcome, what)
        ground.recover(command, outcome, what)
    return outcome


def source_removed(ground: Ground, command: Command, times: int, seed: int) -> Outcome:
    """The inputs vanish while the command runs: an error or the whole result, never a part of it."""
    outcome, random = Outcome("source removed", command.name), Random(f"{seed} {command.name}")
    reference, src, away = ground.reference(command), ground.root / "src", ground.root / "away"
    for n in range(times):
        ground.clear(command)
        process = ground.launch(command.arguments)
        if n % 2:
            ground.wait_for_writing(command, process)
        else:
            time.sleep(random.uniform(0, reference.seconds))
        src.rename(away)
        try:
            status = ground.end(process)
        finally:
            away.rename(src)
        what = f"removal {n}"
        outcome.counts["times"] += 1
        outcome.counts["refused"] += status == 1
        outcome.expect(
            status in (0, 1, 2) and status != TRACE, f"{what}: exit status {status}: {ground.words()[-700:]}"
        )
        if not command.stages:
            outcome.expect(not leftovers(command, ground.root), f"{what}: leaves {leftovers(command, ground.root)[:1]}")
        ground.look(command, outcome, what)
        ground.recover(command, outcome, what)
    return outcome


def twice(ground: Ground, command: Command, times: int, seed: int) -> Outcome:
    """Two runs into one output at once: one of them is refused, or both come to the same result."""
    outcome, random = Outcome("two at once", command.name), Random(f"{seed} {command.name}")
    reference = ground.reference(command)
    for n in range(times):
        ground.clear(command)
        first = ground.launch(command.arguments)
        time.sleep(random.uniform(0, 0.5) * reference.seconds * (n > 0))
        second = ground.launch(command.also or command.arguments, ground.root / "said too")
        status = [ground.end(first), ground.end(second)]
        words = [ground.words(), ground.words(ground.root / "said too")]
        what = f"pair {n}"
        outcome.counts["pairs"] += 1
        outcome.counts["one refused"] += sorted(status) == [0, 1]
        if command.replaces or (command.keeps and status == [0, 0]):
            outcome.expect(status == [0, 0], f"{what}: {status}: {words[0][-300:]} {words[1][-300:]}")
        else:
            outcome.expect(sorted(status) == [0, 1], f"{what}: {status}: {words[0][-300:]} {words[1][-300:]}")
            refused = words[status.index(1)] if 1 in status else "[output-exists]"
            outcome.expect("[output-exists]" in refused or "[output-in-use]" in refused, f"{what}: {refused[-300:]}")
        outcome.expect(not leftovers(command, ground.root), f"{what}: leaves {leftovers(command, ground.root)[:1]}")
        if command.also:
            both = json.loads((ground.root / command.out).read_text())
            outcome.expect(len(both) == 3, f"{what}: one of two changes is lost: {both}")
        else:
            ground.look(command, outcome, what)
    return outcome


def full_disk(ground: Ground, command: Command, times: int, seed: int) -> Outcome:
    """A disk that is full after a part of the result has been written, and that looked empty before."""
    reference = ground.reference(command)

    def size(n: int) -> int:
        kept = sum(path.stat().st_size + 4096 for path in ground._kept(command).parent.rglob("*"))
        return kept + 8192 + int(reference.size * (n + 0.5) / times)

    return _mounted(ground, command, times, "full", "full disk", size)


def read_only(ground: Ground, command: Command, times: int, seed: int) -> Outcome:
    """A folder that cannot be written: refused before any work."""
    return _mounted(ground, command, times, "read-only", "read-only folder", lambda n: 0)


def _mounted(ground: Ground, command: Command, times: int, kind: str, name: str, size: Callable[[int], int]) -> Outcome:
    outcome = Outcome(name, command.name)
    place, result = ground.root / Path(command.out).parts[0], ground.root / "result.json"
    for n in range(times):
        ground.clear(command)
        kept = ground._kept(command)
        keep = kept if kept.exists() and place == (ground.root / command.out).parent else None
        process = _FORK.Process(
            target=start_on,
            args=(
                kind,
                place,
                size(n),
                keep,
                result,
                command.arguments,
                ground.root / "work",
                ground.said,
                ground.environment,
            ),
        )
        process.start()
        ground.end(process)
        seen, what = json.loads(result.read_text()), f"{name} {n}"
        if "skipped" in seen:
            outcome.counts["skipped"] += 1
            continue
        words = ground.words()
        outcome.counts["times"] += 1
        outcome.counts["refused"] += seen["status"] == 1
        outcome.expect(seen["status"] in (0, 1), f"{what}: exit status {seen['status']}: {words[-900:]}")
        if seen["status"] == 1:
            known = "[disk-full]" in words or "[cannot-write]" in words
            outcome.expect(known, f"{what}: refused for something else: {words[-300:]}")
            if not command.stages:
                new = sorted(set(seen["after"].items()) ^ set(seen["before"].items()))
                outcome.expect(not new, f"{what}: leaves {new[:2]}")
        elif seen["status"] == 0 and kind == "read-only":
            outcome.expect(False, f"{what}: it was written all the same")
        outcome.expect(ground.intact(), f"{what}: an input was changed")
    return outcome


KINDS: dict[str, Callable[[Ground, Command, int, int], Outcome]] = {
    "kill -9": kills,
    "SIGINT, SIGTERM": signals,
    "full disk": full_disk,
    "read-only folder": read_only,
    "source removed": source_removed,
    "two at once": twice,
}
"""Every kind of trouble."""
