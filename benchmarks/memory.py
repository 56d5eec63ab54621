"""Peak memory of whole runs beside the plan's estimate, where a vocabulary matrix is large.

    python benchmarks/memory.py [--width 1024] [--runs mean trim ...] [--untie] [--tokenizers FOLDER FOLDER] [--keep NAME]

Two models of one layer and random weights are written, the second with the second tokenizer. A run that is named after a
method gives the first model the tokenizer of the second. `plan` is a dry run: what libraries and tokenizers take. `trim`
and `extend` change the second model by a text (the documentation and the source of tokswap); the other runs are `draft`,
`zett` with a hypernetwork of random weights, and `ensemble`, which prepares both models for the second tokenizer. The
peak is VmHWM of the process, memory-mapped files included; `private` is the largest sample of what is not a file.
Random reserved rows would make the filter of `omp` leave out most shared tokens, so it is off. Linux only.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _machine import keep

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import hypernets
from models import fetch

from tokswap.storage.resolve import resolve_model
from tokswap.tokenizer.tokenizer import read_tokenizer

ROOT = Path(__file__).parent.parent
RUNS = (
    "plan",
    "mean",
    "subword",
    "linear",
    "tokenadapt",
    "kriging",
    "omp(k=2,anchor_filter=false)",
    "zett",
    "trim",
    "extend",
    "draft",
    "ensemble",
)
RUN = """
import re, sys
from tokswap.cli import main
try:
    status = main(sys.argv[1:], standalone_mode=False)
finally:
    print("PEAK", re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], flush=True)
sys.exit(status)
"""


@dataclass(frozen=True)
class Inputs:
    """What the runs read.

    Attributes:
        source: The first model.
        donor: The second model.
        folder: Where results go, and what else a run needs.
    """

    source: Path
    donor: Path
    folder: Path

    def arguments(self, run: str) -> list[str]:
        """Return the command line of a run, but for --out."""
        make: dict[str, Callable[[], list[str]]] = {
            "plan": lambda: [*self._transplant, "--dry-run", "--init", "mean"],
            "zett": lambda: [*self._transplant, "--init", "zett", "--set", f"path={self._hypernet()}"],
            "trim": lambda: ["trim", "--model", str(self.donor), "--corpus", str(self._text())],
            "extend": lambda: ["extend", "--model", str(self.donor), "--corpus", str(self._text()), "--add", "500"],
            "draft": lambda: ["draft", "--model", str(self.source), "--target", str(self.donor), "--init", "subword"],
            "ensemble": lambda: [
                *("ensemble", "prepare", "--model", str(self.source), "--model", str(self.donor)),
                *("--tokenizer", str(self.donor), "--init", "subword"),
            ],
        }
        return make[run]() if run in make else [*self._transplant, "--init", run]

    @property
    def _transplant(self) -> list[str]:
        return ["transplant", "--model", str(self.source), "--tokenizer", str(self.donor)]

    def _hypernet(self) -> Path:
        """A hypernetwork for the first model, with random weights."""
        return hypernets.make_hypernet(
            self.source, self.folder / "hypernet", hn_n_extra_tokens=0, hn_hidden_size=128, hn_intermediate_size=256
        )

    def _text(self) -> Path:
        """The documentation and the source of tokswap, in one file."""
        path = self.folder / "text.txt"
        files = [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "tokswap").rglob("*.py"))]
        path.write_text("\n".join(file.read_text("utf-8") for file in files), encoding="utf-8")
        return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--runs", nargs="*", default=RUNS)
    parser.add_argument("--untie", action="store_true", help="give the first model a lm_head of its own")
    parser.add_argument("--tokenizers", type=Path, nargs=2, help="folders: the first model's and the second's")
    parser.add_argument("--keep", help="write the result to benchmarks/results under this name")
    given = parser.parse_args()
    pair = given.tokenizers or [resolve_model(str(fetch(name))) for name in ("smollm2", "gemma")]
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Inputs(*(Path(scratch) / name for name in ("source", "donor", "more")))
        inputs.folder.mkdir()
        rows = [
            write_model(pair[0], inputs.source, given.width, tied=not given.untie),
            write_model(pair[1], inputs.donor, given.width),
        ]
        matrix = 2 * max(rows) * given.width
        result: dict[str, Any] = {"rows": rows, "width": given.width, "matrix": matrix, "runs": {}}
        for name in given.runs:
            result["runs"][name] = found = run(inputs, name)
            over, off = (found["peak"] - 1.5 * matrix) / 1e6, found["estimate"] / found["peak"] - 1
            print(f"{name:12} {found}  {over:+.0f} MB above 1.5 matrices; estimate {off:+.0%}", flush=True)
        if given.keep:
            print("kept in", keep(given.keep, result))


def write_model(tokenizer: Path, folder: Path, width: int, *, tied: bool = True) -> int:
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
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {
        "model.embed_tokens.weight": [rows, width],
        **({} if tied else {"lm_head.weight": [rows, width]}),
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


def run(inputs: Inputs, name: str) -> dict[str, Any]:
    """Make a run, a process of its own. Return its bytes of memory, the plan's, and its seconds."""
    out = inputs.folder / "out"
    arguments = [*inputs.arguments(name), "--out", str(out), "--json"]
    begin, private = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, *arguments], stdout=output, stderr=subprocess.PIPE, text=True
        )
        while process.poll() is None:
            private = max(private, _private(process.pid))
            time.sleep(0.02)
        seconds = time.perf_counter() - begin
        output.seek(0)
        document, _, peak = output.read().rpartition("PEAK ")
    if process.returncode:
        raise SystemExit(f"{name} failed: {process.stderr.read() if process.stderr else ''}")
    told = json.loads(document)
    members = [json.loads(path.read_text("utf-8")) for path in out.glob("*/tokswap.json")]
    estimate = max(report.get("plan", report)["memory_bytes"] for report in members or [told])
    shutil.rmtree(out, ignore_errors=True)
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
