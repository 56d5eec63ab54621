"""Start-up and planning, as whole processes: `tokswap --help`, and dry runs between large vocabularies.

    python benchmarks/plan.py [--runs 7]

Gemma's vocabulary has 262,144 ids, so Gemma paired with itself is larger than any pair of 150k vocabularies.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from _machine import keep, spread

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models import fetch

from tokswap.storage.resolve import resolve_model

TOKSWAP = [sys.executable, "-m", "tokswap"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    gemma, smollm2 = (str(resolve_model(str(fetch(name)))) for name in ("gemma", "smollm2"))
    dry = ["transplant", "--dry-run", "--out", "/tmp/tokswap-never-written", "--init", "omp"]
    commands = {
        "help": ["--help"],
        "plan gemma 262k <- smollm2 49k": [*dry, "--model", gemma, "--tokenizer", smollm2],
        "plan smollm2 49k <- gemma 262k": [*dry, "--model", smollm2, "--tokenizer", gemma],
        "plan gemma 262k <- gemma 262k": [*dry, "--model", gemma, "--tokenizer", gemma],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for n in range(options.runs + 1):  # the first round warms the page cache
        for name, arguments in commands.items():
            begin = time.perf_counter()
            subprocess.run([*TOKSWAP, *arguments], check=True, capture_output=True)
            if n:
                seconds[name].append(time.perf_counter() - begin)
    summary = {name: spread(values) for name, values in seconds.items()}
    for name, value in summary.items():
        print(f"{name:34} {value['median']:.2f} s ({value['least']:.2f} to {value['most']:.2f})")
    print("kept in", keep("plan", {"seconds": summary, "runs": options.runs}))


if __name__ == "__main__":
    main()
