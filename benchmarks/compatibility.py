"""Which architectures can be transplanted, trimmed, healed and extended: all that transformers lists, with tiny weights.

    python benchmarks/compatibility.py [--part vocabulary] [--only llama --only t5]

`try_one` in tests/architectures.py describes what is tried of transplants and trims (the part `vocabulary`), and
`try_healing` in tests/healing.py what of `heal` and `extend` (the part `healing`). The outcomes are kept in
results/compatibility.json and results/compatibility-heal.json, and shown in docs/compatibility.md. With --only, they
are only printed.
"""

from __future__ import annotations

import os

# Before anything imports the libraries that read these.
os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_VERBOSITY="error",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
    TQDM_DISABLE="1",
)

import argparse
import dataclasses
import multiprocessing
import signal
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from _machine import keep

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))

import architectures
import healing
import make_cli

SECONDS = 180
"""An architecture that takes longer counts as one that cannot be made small enough."""


PARTS = {"vocabulary": "compatibility", "healing": "compatibility-heal"}
"""What is tried -> the file in results/ that keeps the outcomes."""

Job = tuple[str, str, str, tuple[Path, Path]]
"""A part, a task, a model type and two tokenizers."""


def one(job: Job) -> architectures.Outcome | healing.HealOutcome:
    """Try one architecture, for at most `SECONDS`."""
    part, task, model_type, tokenizers = job

    def stop(*_: object) -> None:
        raise TimeoutError(f"took longer than {SECONDS} s")

    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        with tempfile.TemporaryDirectory() as work:
            if part == "healing":
                return healing.try_healing(model_type, Path(work), tokenizers)
            return architectures.try_one(task, model_type, Path(work), tokenizers)
    finally:
        signal.alarm(0)


def tried(part: str, only: list[str], workers: int) -> list[dict[str, Any]]:
    """Try all architectures of a part."""
    outcomes: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        tokenizers = architectures.two_tokenizers(Path(name))
        jobs = [
            (part, task, kind, tokenizers)
            for task in (architectures.TASKS if part == "vocabulary" else ["causal"])
            for kind in architectures.listed(task)
            if not only or kind in only
        ]
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            for outcome in pool.imap(one, jobs):
                outcomes.append(dataclasses.asdict(outcome))
                print("; ".join(str(value)[:100] for value in outcomes[-1].values()), flush=True)
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", action="append", choices=[*PARTS], help="what to try; both parts by default")
    parser.add_argument("--only", action="append", default=[], help="model type to try; repeat for more")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    for part in options.part or PARTS:
        outcomes = tried(part, options.only, options.workers)
        key = "transplant" if part == "vocabulary" else "adapter"
        print(dict(Counter(outcome[key].split(":")[0] for outcome in outcomes)))
        if not options.only:
            print("kept in", keep(PARTS[part], {"outcomes": outcomes}))
            (make_cli.DOCS / "compatibility.md").write_text(make_cli.compatibility(), "utf-8")


if __name__ == "__main__":
    main()
