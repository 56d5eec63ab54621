"""Peak memory of whole runs beside the plan's estimate, where a vocabulary matrix is large.

    python benchmarks/memory.py [--width 1024] [--methods mean subword ...] [--tokenizers FOLDER FOLDER] [--keep NAME]

Two models of one layer and random weights are written, the donor with the second tokenizer, and the first model gets the
tokenizer of the other by each method. `plan` is a dry run: what libraries and tokenizers take. The peak is VmHWM of the
process, memory-mapped files included; `private` is the largest sample of what is not a file. Random reserved rows would
make the filter of `omp` leave out most shared tokens, so it is off. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _machine import keep

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models import fetch

from tokswap.storage.resolve import resolve_model
from tokswap.tokenizer.tokenizer import read_tokenizer

METHODS = ("plan", "mean", "subword", "linear", "tokenadapt", "kriging", "omp(k=2,anchor_filter=false)")
RUN = """
import re, sys
from tokswap.cli import main
try:
    status = main(sys.argv[1:], standalone_mode=False)
finally:
    print("PEAK", re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], flush=True)
sys.exit(status)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--tokenizers", type=Path, nargs=2, help="folders: the source model's and the donor's")
    parser.add_argument("--keep", help="write the result to benchmarks/results under this name")
    given = parser.parse_args()
    pair = given.tokenizers or [resolve_model(str(fetch(name))) for name in ("smollm2", "gemma")]
    with tempfile.TemporaryDirectory() as scratch:
        source, donor = (Path(scratch) / name for name in ("source", "donor"))
        rows = [write_model(*one, given.width) for one in zip(pair, (source, donor), strict=True)]
        matrix = 2 * max(rows) * given.width
        result: dict[str, Any] = {"rows": rows, "width": given.width, "matrix": matrix, "runs": {}}
        for method in given.methods:
            result["runs"][method] = found = run(method, source, donor, Path(scratch) / "out")
            over = (found["peak"] - 1.5 * matrix) / 1e6
            print(f"{method:12} {found}  {found['peak'] / matrix:.2f} matrices; {over:.0f} MB above 1.5", flush=True)
        if given.keep:
            print("kept in", keep(given.keep, result))


def write_model(tokenizer: Path, folder: Path, width: int) -> int:
    """Write a Llama of one small layer with random weights for a tokenizer. Return its rows."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (tokenizer / name).is_file():
            (folder / name).write_bytes((tokenizer / name).read_bytes())
    rows = -(-len(read_tokenizer(tokenizer).vocabulary) // 64) * 64
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "vocab_size": rows,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 8,
        "head_dim": 8,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {
        "model.embed_tokens.weight": [rows, width],
        **{f"model.layers.0.self_attn.{name}_proj.weight": [64, width] for name in "qkv"},
        "model.layers.0.self_attn.o_proj.weight": [width, 64],
        **{f"model.layers.0.mlp.{name}_proj.weight": [64, width] for name in ("gate", "up")},
        "model.layers.0.mlp.down_proj.weight": [width, 64],
        **{f"model.layers.0.{name}_layernorm.weight": [width] for name in ("input", "post_attention")},
        "model.norm.weight": [width],
    }
    header, at = {}, 0
    for name, shape in shapes.items():
        nbytes = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + nbytes]}
        at += nbytes
    text = json.dumps(header).encode()
    rng = np.random.default_rng(rows)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        while at:
            block = rng.standard_normal(min(at // 2, 4 << 20), np.float32) * np.float32(0.02)
            at -= file.write((block.view(np.uint32) >> 16).astype(np.uint16).tobytes())
    return rows


def run(method: str, source: Path, donor: Path, out: Path) -> dict[str, Any]:
    """Run a transplant as a process of its own. Return its bytes of memory, the plan's, and its seconds."""
    names = ["--model", str(source), "--tokenizer", str(donor), "--out", str(out), "--force", "--json"]
    init = ["--dry-run", "--init", "mean"] if method == "plan" else ["--init", method]
    begin, private = time.perf_counter(), 0
    command = [sys.executable, "-c", RUN, "transplant", *names, *init]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, text=True)
        while process.poll() is None:
            private = max(private, _private(process.pid))
            time.sleep(0.02)
        seconds = time.perf_counter() - begin
        output.seek(0)
        document, _, peak = output.read().rpartition("PEAK ")
    if process.returncode:
        raise SystemExit(f"{method} failed: {process.stderr.read() if process.stderr else ''}")
    report = json.loads(document)
    estimate = report.get("plan", report)["memory_bytes"]
    return {"peak": int(peak) * 1024, "private": private, "estimate": estimate, "seconds": round(seconds, 1)}


def _private(process: int) -> int:
    """What a process holds that is no file, in bytes; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
