"""Which architectures can be transplanted and trimmed: all that transformers lists, with tiny random weights.

    python benchmarks/compatibility.py [--only llama --only t5]

`try_one` in tests/architectures.py describes what is tried. The outcomes are kept in results/compatibility.json and
shown in docs/compatibility.md. With --only, they are only printed.
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
import make_cli

SECONDS = 180
"""An architecture that takes longer counts as one that cannot be made small enough."""


def one(job: tuple[str, str, tuple[Path, Path]]) -> architectures.Outcome:
    """Try one architecture, for at most `SECONDS`."""
    task, model_type, tokenizers = job

    def stop(*_: object) -> None:
        raise TimeoutError(f"took longer than {SECONDS} s")

    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        with tempfile.TemporaryDirectory() as work:
            return architectures.try_one(task, model_type, Path(work), tokenizers)
    finally:
        signal.alarm(0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", action="append", help="model type to try; repeat for more")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        tokenizers = architectures.two_tokenizers(Path(name))
        jobs = [
            (task, kind, tokenizers)
            for task in architectures.TASKS
            for kind in architectures.listed(task)
            if not options.only or kind in options.only
        ]
        outcomes: list[dict[str, Any]] = []
        with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
            for outcome in pool.imap(one, jobs):
                outcomes.append(dataclasses.asdict(outcome))
                print(
                    f"{outcome.task}, {outcome.model_type}: {outcome.transplant[:100]}; {outcome.trim[:100]}",
                    flush=True,
                )
    count = Counter(outcome["transplant"].split(":")[0] for outcome in outcomes)
    print(dict(count))
    if not options.only:
        print("kept in", keep("compatibility", {"outcomes": outcomes}))
        (make_cli.DOCS / "compatibility.md").write_text(make_cli.compatibility(), "utf-8")


if __name__ == "__main__":
    main()
