"""Speed and memory of a mixed model beside its members alone, and of a byte mixture.

    python benchmarks/ensemble.py [--tokens 48] [--runs 3] [--dtype float32]
    python benchmarks/ensemble.py --bytes 80 [--threads 2]

The pair is Gemma-3-270m and SmolLM2-135M-Instruct, both with SmolLM2's tokenizer. A token of the mixed model takes a
token of each member and the averaging. So its speed is compared with that of the members one after the other:

    share = (seconds of member 1 + seconds of member 2) / seconds of the mixed model

Runs take turns, so that other work on the machine slows all of them alike. Memory is the peak resident size of a
process of its own.

`--bytes` measures the mixture of the two models with their own tokenizers, byte by byte, on three prompts, beside the
token generation of each model alone (transformers' own `generate` for as many tokens as the mixture's text has). Per
second means per second of processor time, and "wall" per second on the clock, which other work stretches.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from _machine import keep, spread

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models import fetch

import tokswap
from tokswap.ensemble.bytewise import ByteMixture, byte_mix
from tokswap.ensemble.bytewise.tree import Tree
from tokswap.ensemble.mix import MIXES
from tokswap.evaluation.models import load_model
from tokswap.storage.resolve import resolve_model

PROMPT = "The ferry leaves the harbour at nine, and"
BYTE_PROMPTS = {
    "English": "The ferry leaves the harbour at nine, and the passengers",
    "code": 'def read_lines(path):\n    """Return the lines of a file."""\n    with open(path) as',
    "German": "Die Fähre verlässt den Hafen um neun Uhr, und die Reisenden",
}
_PEAK = """
import json, re, sys
from pathlib import Path
kind, path, prompt = sys.argv[1:]
if kind == "mix":
    from tokswap import load_ensemble
    model, tokenizer = load_ensemble(path)
else:
    from tokswap.evaluation.models import load_model
    model, tokenizer = load_model(path)
ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
model.generate(ids, max_new_tokens=16, min_new_tokens=16, do_sample=False)
# Not getrusage: it counts what the parent had in memory too.
print(1024 * int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]))
"""


def timed(model: Any, ids: Any, tokens: int) -> float:
    """Return the seconds of one greedy continuation of exactly `tokens` tokens."""
    begin = time.perf_counter()
    model.generate(ids, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
    return time.perf_counter() - begin


def peak(kind: str, path: Path) -> int:
    """Return the peak resident size of a process that loads a model and generates."""
    command = [sys.executable, "-c", _PEAK, kind, str(path), PROMPT]
    return int(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]))


def clocks() -> tuple[float, float]:
    """Return the seconds of processor time and of the clock."""
    return time.process_time(), time.perf_counter()


def counted_passes() -> list[int]:
    """Count the passes of all byte models from now on; returns the list that each of them is added to."""
    passes: list[int] = []
    extend = Tree.extend

    def counted(tree: Tree, parents: Any, tokens: Any) -> Any:
        passes.append(len(tokens))
        return extend(tree, parents, tokens)

    Tree.extend = counted
    return passes


def byte_run(mixture: ByteMixture, prompt: str, most: int, passes: list[int]) -> tuple[str, dict[str, float]]:
    """Continue a prompt byte by byte; returns the text and its figures."""
    passes.clear()
    cpu, wall = clocks()
    text = "".join(mixture.generate(prompt, most=most))
    size = len(text.encode())
    after = clocks()
    return text, {
        "per_second": size / (after[0] - cpu),
        "wall": size / (after[1] - wall),
        "passes_per_byte": len(passes) / len(mixture.models) / size,
    }


def token_run(model: Any, tokenizer: Any, prompt: str, text: str) -> dict[str, float]:
    """Have a model write as many tokens as a text has; returns bytes per second."""
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    tokens = len(tokenizer(text, add_special_tokens=False)["input_ids"])
    cpu, wall = clocks()
    model.generate(ids, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
    after = clocks()
    size = len(text.encode())
    return {"per_second": size / (after[0] - cpu), "wall": size / (after[1] - wall)}


def measure_bytes(most: int, runs: int, threads: int) -> dict[str, Any]:
    """Measure the byte mixture and each model alone, by turns, and print a table."""
    import torch

    torch.set_num_threads(threads)
    paths = {name: resolve_model(str(fetch(name))) for name in ("gemma", "smollm2")}
    alone = {name: load_model(path) for name, path in paths.items()}
    mixture, passes = byte_mix([str(path) for path in paths.values()]), counted_passes()
    rows: dict[str, Any] = {}
    for kind, prompt in BYTE_PROMPTS.items():
        found: dict[str, list[dict[str, float]]] = {}
        for _ in range(runs):
            text, figures = byte_run(mixture, prompt, most, passes)
            found.setdefault("bytes", []).append(figures)
            for name, (model, tokenizer) in alone.items():
                found.setdefault(f"tokens, {name} alone", []).append(token_run(model, tokenizer, prompt, text))
        for name, several in found.items():
            rows[f"{kind}: {name}"] = {key: spread([one[key] for one in several]) for key in several[0]}
    print(f"{'bytes':36}{'per second':>12}{'wall':>8}{'passes per byte':>18}")
    for name, row in rows.items():
        passes_shown = f"{row['passes_per_byte']['median']:18.2f}" if "passes_per_byte" in row else ""
        print(f"{name:36}{row['per_second']['median']:12.1f}{row['wall']['median']:8.1f}{passes_shown}")
    return {"bytes": most, "runs": runs, "threads": threads, "load_average": os.getloadavg(), "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--folder", type=Path, help="where the ensemble is kept; by default it is deleted")
    parser.add_argument("--bytes", type=int, default=0, help="measure byte-level generation of so many bytes instead")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.bytes:
        result = measure_bytes(options.bytes, options.runs, options.threads)
        print("kept in", keep("ensemble-bytes", result))
        return
    models = [str(resolve_model(str(fetch(name)))) for name in ("gemma", "smollm2")]
    with tempfile.TemporaryDirectory() as work:
        folder = options.folder or Path(work) / "pair"
        ensemble = tokswap.prepare_ensemble(models, models[1], folder, init="subword")
        memory = {member.name: peak("member", ensemble.path_of(member)) for member in ensemble.members}
        memory["mix"] = peak("mix", folder)
        model, tokenizer = tokswap.load_ensemble(folder, dtype=options.dtype)
        ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
        seconds: dict[str, list[float]] = {}
        for run in range(options.runs + 1):  # the first one warms up
            for n, member in enumerate(ensemble.members):
                seconds.setdefault(member.name, []).append(timed(model.members[n], ids, options.tokens))
            for mix in MIXES:
                model.mix = mix
                seconds.setdefault(f"mix of {mix}", []).append(timed(model, ids, options.tokens))
            if not run:
                seconds = {}
        names = [member.name for member in ensemble.members]
        sums = [sum(parts) for parts in zip(*(seconds[name] for name in names), strict=True)]
        shares = {
            mix: spread([s / own for s, own in zip(sums, seconds[f"mix of {mix}"], strict=True)]) for mix in MIXES
        }
    print(f"{'':36}{'tokens/s':>10}{'peak memory':>14}")
    for name, values in seconds.items():
        size = memory.get(name, memory["mix"]) / 1e9
        print(f"{name:36}{options.tokens / spread(values)['median']:10.1f}{size:11.2f} GB")
    for mix, share in shares.items():
        median, least, most = (100 * share[key] for key in ("median", "least", "most"))
        print(f"{mix}: {median:.1f} % of the members' sum ({least:.1f} to {most:.1f})")
    result = {
        "dtype": options.dtype,
        "tokens": options.tokens,
        "runs": options.runs,
        "load_average": os.getloadavg(),
        "tokens_per_second": {n: spread([options.tokens / s for s in values]) for n, values in seconds.items()},
        "share_of_the_sum": shares,
        "peak_bytes": memory,
    }
    print("kept in", keep("ensemble", result))


if __name__ == "__main__":
    main()
