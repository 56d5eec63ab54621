"""Gives damaged files to tokswap. Each must be read or refused, without a traceback, a hang, or a file elsewhere.

Input n of a target depends on the seed and n alone, so one input can be repeated:
`Sandbox(target, root).once(Random(f"{seed} {name} {n}"))`.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import makers

from soak.targets import SECRET, TARGETS, Target
from soak.watch import watched

SECONDS = 10
"""No input may take longer."""
MEMORY = 1 << 30
"""Bytes of address space that inputs may add to a process with everything imported."""
_BATCH = 400


class Hang(BaseException):
    """An input took longer than `SECONDS`."""


@dataclass
class Tally:
    """The outcome for the inputs of one target.

    Attributes:
        name: Name of the target.
        inputs: How many were read.
        outcomes: "ok" or an error code -> how often.
        findings: What must not happen and did -> the numbers of the inputs.
        slowest: Longest time of an input, in seconds.
        growth: Bytes of memory that the inputs added at most.
        seconds: Time of all inputs.
        cpu: CPU time of all inputs, in seconds.
    """

    name: str
    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: dict[str, list[int]] = field(default_factory=dict)
    slowest: float = 0.0
    growth: int = 0
    seconds: float = 0.0
    cpu: float = 0.0

    def found(self, what: str, number: int) -> None:
        """Add a finding. Equal findings are listed once, with all their numbers."""
        self.findings.setdefault(what, []).append(number)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        refused = sum(count for outcome, count in self.outcomes.items() if outcome not in ("ok", "checks failed"))
        return {
            "name": self.name,
            "inputs": self.inputs,
            "taken": self.inputs - refused,
            "refused": refused,
            "codes": dict(sorted(self.outcomes.items(), key=lambda item: -item[1])),
            "findings": {k: v[:5] for k, v in self.findings.items()},
            "slowest_seconds": round(self.slowest, 2),
            "memory_growth_mb": round(self.growth / 1e6, 1),
            "seconds": round(self.seconds, 1),
            "cpu_seconds": round(self.cpu, 1),
        }


class Sandbox:
    """Folders for one target.

    root/in holds its files, of which one is damaged at a time. root/model, root/other and root/text.txt are good.
    root/out is for what commands write.
    """

    def __init__(self, target: Target, root: Path, models: Path | None = None) -> None:
        """Make the files. models: another root to copy the good models from."""
        self.target, self.root = target, root.resolve()
        self.folder, self.out = self.root / "in", self.root / "out"
        self.out.mkdir(parents=True)
        for name, architecture, size in (("model", "qwen2", 300), ("other", "gemma3", 340)):
            if models is None:
                makers.make_model(architecture, self.root / name, vocab_size=size)
            else:
                shutil.copytree(models / name, self.root / name)
        (self.root / "text.txt").write_text(makers.shipped_text("english")[:2000], encoding="utf-8")
        shutil.copyfile(self.root / "model" / "model.safetensors", self.root / SECRET)
        self.folder.mkdir()
        target.make(self.folder)
        self.good = {name: (self.folder / name).read_bytes() for name in target.victims}
        self.before = self._state()

    def once(self, random: Random) -> str:
        """Damage a file and read it.

        Returns:
            "ok", "checks failed", "usage" or an error code.

        Raises:
            AssertionError: where something was done that must not be done.
            Exception: whatever tokswap raises besides its own errors.
        """
        name = random.choice(sorted(self.target.victims))
        damaged = self.target.victims[name](self.good[name], random)
        (self.folder / name).write_bytes(damaged)
        try:
            with watched(self.root, self.out) as seen:
                outcome = self.target.run(self.folder, random)
            assert not seen, f"it did what it must not do: {seen[0]}"
            left = [
                path.name
                for path in self.out.iterdir()
                if path.name != "result" or outcome not in ("ok", "checks failed")
            ]
            assert not left, f"left behind after {outcome}: {left[0]}"
        finally:
            (self.folder / name).write_bytes(self.good[name])
            for path in self.out.iterdir():
                shutil.rmtree(path)
        return outcome

    def check(self) -> None:
        """Raise AssertionError where anything outside `out` has changed."""
        assert self._state() == self.before, "an input file was changed, or a file was written beside the output"

    def _state(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and self.out not in path.parents
        }


def describe(error: BaseException) -> str:
    """Return the type of an exception, and the last line of tokswap that it passed or its message."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/tokswap/" in frame.filename]
    last = f" at {'/'.join(Path(frames[-1].filename).parts[-2:])}:{frames[-1].lineno}" if frames else ""
    message = str(error).splitlines()[0][:100] if str(error) else ""
    kind = type(error).__name__
    return f"{kind}{last}" if frames else f"{kind}: {message}"


def fuzz(target: Target, inputs: int, seed: int, root: Path) -> Tally:
    """Read many damaged inputs of a target in children of this process."""
    tally = Tally(target.name)
    context = multiprocessing.get_context("fork")
    shutil.rmtree(root, ignore_errors=True)
    sandbox, begin, cpu = Sandbox(target, root), time.perf_counter(), _children_cpu()
    number = 0
    while number < inputs:
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_work, args=(theirs, sandbox, seed, number, min(number + _BATCH, inputs)))
        child.start()
        theirs.close()
        number = _listen(ours, child, tally, number)
        ours.close()
        shutil.rmtree(sandbox.out)
        sandbox.out.mkdir()
        for name, data in sandbox.good.items():
            (sandbox.folder / name).write_bytes(data)
        try:
            sandbox.check()
        except AssertionError as error:
            tally.found(describe(error), number)
            sandbox = Sandbox(target, root / f"again-{number}")
    tally.seconds, tally.cpu = time.perf_counter() - begin, _children_cpu() - cpu
    shutil.rmtree(root, ignore_errors=True)
    return tally


def _listen(pipe: Connection, child: Any, tally: Tally, number: int) -> int:
    """Count what a child reports until it has ended. Return the number of the next input."""
    while True:
        try:
            if not pipe.poll(3 * SECONDS):
                tally.found(f"{tally.name}: hangs in native code", number)
                child.kill()
                break
            kind, *more = pipe.recv()
        except EOFError:
            child.join()
            tally.found(f"{tally.name}: the process died with {child.exitcode}", number)
            break
        if kind == "done":
            child.join()
            tally.growth = max(tally.growth, more[0])
            return number
        outcome, seconds, finding = more
        tally.inputs += 1
        tally.slowest = max(tally.slowest, seconds)
        if finding:
            tally.found(finding, number)
        else:
            tally.outcomes[outcome] += 1
        number += 1
    child.join()
    tally.inputs += 1
    return number + 1


def _work(pipe: Connection, sandbox: Sandbox, seed: int, first: int, end: int) -> None:
    """Read some inputs in this process, and report each."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)  # Rust code writes its panics here
    os.chdir(sandbox.out)
    os.environ.update(TOKSWAP_HOME=str(sandbox.root / "home"), TOKSWAP_CACHE=str(sandbox.root / "out" / "cache"))

    def stop(*_: object) -> None:
        raise Hang(f"more than {SECONDS} seconds")

    signal.signal(signal.SIGALRM, stop)
    before = peak()
    limit = _address_space() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for number in range(first, end):
        begin, finding, outcome = time.perf_counter(), "", ""
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            outcome = sandbox.once(Random(f"{seed} {sandbox.target.name} {number}"))
        except BaseException as error:
            finding = describe(error)
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send(("input", outcome, time.perf_counter() - begin, finding))
    pipe.send(("done", peak() - before))
    os._exit(0)


def peak() -> int:
    """Return the peak memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def shares(inputs: int) -> Iterator[tuple[Target, int]]:
    """Yield the targets, and how many inputs each gets."""
    whole = sum(target.share for target in TARGETS)
    for target in TARGETS:
        yield target, max(1, inputs * target.share // whole)
