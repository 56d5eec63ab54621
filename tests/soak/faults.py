"""Runs commands that write into trouble, and looks at what they leave behind.

One function per kind of trouble: `kills`, `full_disk`, `read_only` and others. Commands run in children that are forked
from a process with everything imported, so that a run takes no longer than its work.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from soak.child import TRACE, start_on
from soak.commands import Command, leftovers, state
from soak.ground import FORK, Ground, Outcome


def kills(ground: Ground, command: Command, times: int, seed: int) -> Outcome:
    """Send SIGKILL, half of the times at any moment of a run and half while it writes."""
    outcome, random = Outcome("kill -9", command.name), Random(f"{seed} {command.name}")
    reference = ground.reference(command)
    for n in range(2 * times):  # a run may end before it is killed
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
    """Send SIGINT and SIGTERM in turn at any moment. Expect a message, the usual exit status, and no leftovers."""
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
        # Python and click answer before the command has begun. Nothing has been written then.
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
    """Remove the inputs while the command runs. Expect an error or the whole output, never a part of it."""
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
    """Start two runs with one output. Expect that one of them is refused, or that both give the same output."""
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
    """Fill the disk when a part of the output has been written. The disk looks empty before."""
    reference = ground.reference(command)

    def size(n: int) -> int:
        kept = sum(path.stat().st_size + 4096 for path in ground.kept_output(command).parent.rglob("*"))
        return kept + 8192 + int(reference.size * (n + 0.5) / times)

    return _mounted(ground, command, times, "full", "full disk", size)


def read_only(ground: Ground, command: Command, times: int, seed: int) -> Outcome:
    """Make the folder read-only. Expect that the command is refused."""
    return _mounted(ground, command, times, "read-only", "read-only folder", lambda n: 0)


def _mounted(ground: Ground, command: Command, times: int, kind: str, name: str, size: Callable[[int], int]) -> Outcome:
    outcome = Outcome(name, command.name)
    place, result = ground.root / Path(command.out).parts[0], ground.root / "result.json"
    for n in range(times):
        ground.clear(command)
        kept = ground.kept_output(command)
        keep = kept if kept.exists() and place == (ground.root / command.out).parent else None
        process = FORK.Process(
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
            outcome.expect(False, f"{what}: it was written in spite of that")
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
"""Name of each kind of trouble -> the function that runs a command into it."""
