"""Start-up and planning, as whole processes: `tokswap --help`, and dry runs between large vocabularies.

    python benchmarks/plan.py [--runs 7] [--tokenizers FOLDER FOLDER]

Gemma's vocabulary has 262,144 ids, so Gemma paired with itself is larger than any pair of 150k vocabularies.
--tokenizers adds a plan between two tokenizers of one's own, such as those that `make field` fetches: the first one gets
a tiny model. Beside it stands its limit: a script that only loads both tokenizers with AutoTokenizer.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _machine import keep, spread

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models import fetch

from tokswap.storage.resolve import resolve_model

TOKSWAP = ["-m", "tokswap"]
LOAD = "import sys; from transformers import AutoTokenizer; list(map(AutoTokenizer.from_pretrained, sys.argv[1:]))"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--tokenizers", type=Path, nargs=2)
    options = parser.parse_args()
    gemma, smollm2 = (str(resolve_model(str(fetch(name)))) for name in ("gemma", "smollm2"))
    dry = [*TOKSWAP, "transplant", "--dry-run", "--out", "/tmp/tokswap-never-written"]
    commands = {
        "help": [*TOKSWAP, "--help"],
        "plan gemma 262k <- smollm2 49k": [*dry, "--init", "omp", "--model", gemma, "--tokenizer", smollm2],
        "plan smollm2 49k <- gemma 262k": [*dry, "--init", "omp", "--model", smollm2, "--tokenizer", gemma],
        "plan gemma 262k <- gemma 262k": [*dry, "--init", "omp", "--model", gemma, "--tokenizer", gemma],
    }
    with tempfile.TemporaryDirectory() as scratch:
        if options.tokenizers:
            first, second = options.tokenizers
            model = tiny_model(first, Path(scratch) / first.name)
            commands[f"plan {first.name} <- {second.name}"] = [
                *dry,
                "--init",
                "subword",
                "--model",
                str(model),
                "--tokenizer",
                str(second),
            ]
            commands[f"AutoTokenizer {first.name}, {second.name}"] = ["-c", LOAD, str(model), str(second)]
        seconds, processor = measure(commands, options.runs)
    for name in commands:
        value = seconds[name]
        spent = processor[name]["median"]
        print(
            f"{name:38} {value['median']:.2f} s ({value['least']:.2f} to {value['most']:.2f}), processor {spent:.2f} s"
        )
    print("kept in", keep("plan", {"seconds": seconds, "processor_seconds": processor, "runs": options.runs}))


def measure(commands: dict[str, list[str]], runs: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run all commands in turn, and return the spread of their wall and of their processor seconds."""
    wall: dict[str, list[float]] = {name: [] for name in commands}
    processor: dict[str, list[float]] = {name: [] for name in commands}
    for n in range(runs + 1):  # the first round warms the page cache
        for name, arguments in commands.items():
            begin, before = time.perf_counter(), spent()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            if n:
                wall[name].append(time.perf_counter() - begin)
                processor[name].append(spent() - before)
    return _spreads(wall), _spreads(processor)


def _spreads(values: dict[str, list[float]]) -> dict[str, Any]:
    return {name: spread(some) for name, some in values.items()}


def spent() -> float:
    """Return the processor seconds of all child processes so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def tiny_model(tokenizer: Path, folder: Path) -> Path:
    """Write a tiny model with a tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    shutil.copytree(tokenizer, folder)
    rows = len(AutoTokenizer.from_pretrained(str(folder)))
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=rows, **shape)).save_pretrained(str(folder))
    return folder


if __name__ == "__main__":
    main()
