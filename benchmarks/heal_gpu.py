"""Healing of the demo pair on a GPU: changes of the default settings, one at a time, and what healing compares with.

    python benchmarks/heal_gpu.py --source DIR --student DIR --texts DIR --out heal-gpu.json [--device cuda]

The student is the source model with another tokenizer (`tokswap transplant --init auto`). `--texts` holds the folders dev,
held and heal-120, heal-480, heal-1000 of `quality_texts.py`. The first row runs alone, for its time; the others share the
device. Changes are judged by the development texts; only rows that the page shows beside others read the held-out ones.
The JSON file is written after each row, and everything ends after the given minutes; rows that are in the file are not
run again.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from _heal_speed import speed

LANGUAGES = ("en", "code", "de")
CROSS_ENTROPY = {"kl": 0.0, "cross_entropy": 1.0}
SINGLE: dict[str, dict[str, Any]] = {
    "3 epochs": {"epochs": 3},
    "4 epochs": {"epochs": 4},
    "cross-entropy weight 1": {"cross_entropy": 1.0},
    "cross-entropy weight 0": {"cross_entropy": 0.0},
    "rank 32": {"rank": 32},
    "rank 64": {"rank": 64},
    "rate 2e-3": {"rate": 2e-3},
    "rate 5e-4": {"rate": 5e-4},
    "embedding rate 3e-3": {"embedding_rate": 3e-3},
    "embedding rate 1e-2": {"embedding_rate": 1e-2},
    "256 tokens a step": {"batch_tokens": 256},
    "1024 tokens a step": {"batch_tokens": 1024},
    "full": {"train": "full"},
    "self-text of the same size": {"self_text": 120_000},
    "self-text of the same size, one epoch": {"self_text": 120_000, "epochs": 1},
}
"""Changes of the default, one at a time."""


@dataclass(frozen=True)
class Row:
    """A healing to measure.

    Attributes:
        name: What it is called.
        settings: Options that differ from the default.
        kilobytes: Size of the training text.
        source: Whether the source model learns, in place of the student.
        held: Whether the held-out texts are read too.
        timed: Whether it runs alone, and the speed of a step is measured after it.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    kilobytes: int = 120
    source: bool = False
    held: bool = False
    timed: bool = False

    @property
    def group(self) -> tuple[object, ...]:
        """Rows of a group share what the teacher has read, so the first of them runs before the others."""
        return self.kilobytes, self.source, self.settings.get("self_text", 0)


def all_rows() -> list[Row]:
    """Return the rows, in the order in which they start."""
    return [
        Row("default", held=True, timed=True),
        Row("default, 1000 kB", kilobytes=1000, held=True),
        Row("default, 480 kB", kilobytes=480, held=True),
        *[Row(name, settings, held=True) for name, settings in SINGLE.items() if "self_text" in settings],
        *[Row(f"default, seed {seed}", {"seed": seed}, held=True) for seed in (1, 2)],
        *[Row(name, settings) for name, settings in SINGLE.items() if "self_text" not in settings],
        Row("cross-entropy alone, one epoch", {**CROSS_ENTROPY, "epochs": 1}, held=True),
        Row("cross-entropy alone, two epochs", CROSS_ENTROPY, held=True),
        Row("cross-entropy alone, three epochs", {**CROSS_ENTROPY, "epochs": 3}, held=True),
        Row("control: the source model, one epoch", {**CROSS_ENTROPY, "epochs": 1}, source=True, held=True),
        Row("control: the source model, two epochs", CROSS_ENTROPY, source=True, held=True),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("source", "student", "texts", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--rows", nargs="*", help="names of the rows to run")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        print("RESULT", json.dumps(one_row(Row(**json.loads(given.one)), given)), flush=True)
        return
    Pool(given).run()


class Pool:
    """Runs rows as processes beside each other."""

    def __init__(self, given: argparse.Namespace) -> None:
        """Read the rows that are done."""
        self.given, self.end = given, time.monotonic() + 60 * given.minutes
        self.rows: dict[str, Any] = json.loads(given.out.read_text("utf-8"))["rows"] if given.out.is_file() else {}
        self.all = [one for one in all_rows() if given.rows is None or one.name in given.rows]
        self.running: dict[str, tuple[Row, subprocess.Popen[bytes], IO[str], float]] = {}
        self.primed: set[tuple[object, ...]] = set()

    def run(self) -> None:
        """Run everything, or as much as the time allows."""
        while time.monotonic() < self.end:
            self._collect()
            waiting = [one for one in self.all if one.name not in self.rows and one.name not in self.running]
            if not waiting and not self.running:
                break
            self._start(waiting)
            time.sleep(0.1)
        for _, process, *_ in self.running.values():
            process.kill()
        unfinished = [one.name for one in self.all if one.name not in self.rows]
        print("unfinished:", unfinished, flush=True)
        self._keep()

    def _start(self, waiting: Sequence[Row]) -> None:
        for row in waiting:
            alone = any(one.timed for one, *_ in self.running.values()) or (row.timed and self.running)
            busy = {one.group for one, *_ in self.running.values()} - self.primed
            if len(self.running) >= self.given.workers or alone:
                return
            if row.group in busy:
                continue
            argv = [sys.executable, __file__, *sys.argv[1:], "--one", json.dumps(asdict(row))]
            said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - read when the process has ended
            process = subprocess.Popen(argv, stdout=said, stderr=subprocess.STDOUT)
            self.running[row.name] = (row, process, said, time.monotonic())

    def _collect(self) -> None:
        for name, (row, process, said, begin) in list(self.running.items()):
            if process.poll() is None:
                continue
            del self.running[name]
            self.primed.add(row.group)
            said.seek(0)
            lines = said.read().splitlines()
            result = next((line[7:] for line in lines if line.startswith("RESULT ")), None)
            found: dict[str, Any] = (
                {"failed": " | ".join(lines[-12:])[-1500:]} if result is None else json.loads(result)
            )
            self.rows[name] = {"settings": dict(row.settings), **found}
            figures = [found.get(key, {}).get("mean") for key in ("development", "held_out")]
            left = round(self.end - time.monotonic())
            print(f"{left:4} {time.monotonic() - begin:6.1f} {figures} {name} {found.get('failed', '')}", flush=True)
            self._keep()

    def _keep(self) -> None:
        body = {"date": datetime.date.today().isoformat(), "machine": machine(self.given.device), "rows": self.rows}
        path = Path(f"{self.given.out}.part")
        path.write_text(json.dumps(body, indent=2) + "\n", "utf-8")
        path.replace(self.given.out)


def machine(device: str) -> dict[str, Any]:
    """Describe the device, and versions of libraries."""
    import peft
    import torch

    from tokswap.report.record import versions

    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor()
    found = {**versions(), "peft": peft.__version__}
    return {"device": name, "cores": os.cpu_count(), "python": platform.python_version(), "versions": found}


def one_row(row: Row, given: argparse.Namespace) -> dict[str, Any]:
    """Make one row, in this process."""
    import torch

    import tokswap

    begin = time.perf_counter()
    paths = [given.texts / f"heal-{row.kilobytes}" / f"{name}.txt" for name in ("en", "de", "code")]
    model = given.source if row.source else given.student
    found: dict[str, Any] = {}
    out = Path(tempfile.mkdtemp()) / "out"
    if row.timed:
        found["before"] = {name: excess(model, given, name) for name in ("dev", "held")}
        torch.cuda.reset_peak_memory_stats() if given.device == "cuda" else None
    try:
        settings = {**row.settings, "device": given.device, "progress": False}
        report = tokswap.heal_model(model, paths, teacher=given.source, out=out, **settings)
        found |= {
            "steps": report.healing["steps"],
            "text": dict(report.healing["text"]),
            "own_held_out": [report.healing[f"excess_{when}"]["all"] for when in ("before", "after")],
            "course": report.healing["held_out"],
            "seconds": {name: round(value, 1) for name, value in report.seconds.items()},
        }
    except tokswap.InputError as error:
        if error.code != "not-better":
            raise
        found["not_better"], out = error.message, model
    if given.device == "cuda":
        found["peak_device_memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    found["development"] = excess(out, given, "dev")
    if row.held:
        found["held_out"] = excess(out, given, "held")
    if row.timed:
        sides = given.source, given.student
        found["tokens_per_second"] = {
            str(size): speed(sides, paths, given.device, batch_tokens=size, epochs=4 if size > 1000 else 1)
            for size in (512, 4096)
        }
    if out != model:
        shutil.rmtree(out.parent)
    return {**found, "whole_seconds": round(time.perf_counter() - begin, 1)}


def excess(folder: Path, given: argparse.Namespace, texts: str) -> dict[str, float]:
    """Return the excess over the source model on each text, and their mean."""
    from tokswap.evaluation.losses import bits_per_byte
    from tokswap.evaluation.models import load_model

    read = {name: (given.texts / texts / f"{name}.txt").read_text("utf-8") for name in LANGUAGES}
    bits = []
    for one in (given.source, folder):
        model, tokenizer = load_model(one, dtype="bfloat16", device=given.device)
        bits.append({name: bits_per_byte(model, tokenizer, text).bits_per_byte for name, text in read.items()})
        del model
    found = {name: bits[1][name] - bits[0][name] for name in LANGUAGES}
    return {name: round(value, 4) for name, value in {**found, "mean": sum(found.values()) / len(found)}.items()}


if __name__ == "__main__":
    main()
