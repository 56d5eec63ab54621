"""Writing speed and peak memory: a checkpoint of several GB, against `cp` of the same files.

    python benchmarks/write.py [--gigabytes 4] [--runs 5] [--folder DIR]
    python benchmarks/write.py --scale [--gigabytes 30] [--folder DIR]

The checkpoint has a real tokenizer (Gemma's), a random vocabulary matrix, and layers of random bytes in shards of 500
MB. Each run times these one after the other, with an idle disk at the start of each:

    cp          cp -r of the finished result; it returns when the bytes are in the page cache
    cp, synced  the same, followed by an fsync of every file: the price of a durable copy
    tokswap     the write stage of a transplant onto SmolLM2's tokenizer, which ends with every file fsynced

and measures the peak memory of the whole tokswap process.

--scale is one run of a large case: a model 4,096 wide with SmolLM2's 49k tokens and a separate lm_head gets the first
128k of Gemma's, so most rows are initialised. It times the whole transplant with `subword` and `--link`, one with
`mean` that copies everything, and `cp -r` of the source. It needs disk space for two models. docs/scale.md uses its
figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _machine import keep, spread

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models import fetch

from tokswap.storage.resolve import resolve_model
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer
from tokswap.trim.rebuild import trim_tokenizer

WIDTH = 1024
SCALE_ROWS, SCALE_WIDTH = 128_000, 4096
SHARD = 500_000_000
RUN = """
import json, resource, sys
import tokswap
source, tokenizer, out, init, *link = sys.argv[1:]
report = tokswap.transplant_tokenizer(source, tokenizer, init=init, out=out, link=bool(link))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": report.seconds, "peak": peak}))
"""


def make_checkpoint(folder: Path, tokenizer: Path, gigabytes: float, width: int = WIDTH, tied: bool = True) -> None:
    """Write a sharded checkpoint: one or two vocabulary matrices, and layers of random bytes."""
    for path in tokenizer.glob("*"):
        if path.suffix != ".safetensors":
            shutil.copy(path, folder / path.name)
    rows = json.loads((tokenizer / "config.json").read_text())["vocab_size"]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "vocab_size": rows,
        "intermediate_size": 4 * width,
        "num_hidden_layers": 1,
        "num_attention_heads": 8,
        "tie_word_embeddings": tied,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    noise = np.random.default_rng(0).standard_normal(32 << 20, np.float32) * 0.02
    block = (noise.view(np.uint32) >> 16).astype(np.uint16)  # bfloat16 by truncation
    sizes = [("model.embed_tokens.weight", rows), *([] if tied else [("lm_head.weight", rows)])]
    left, n = int(gigabytes * 1e9) - len(sizes) * rows * width * 2, 0
    while left > 0:
        sizes.append((f"model.layers.{n}.mlp.up_proj.weight", SHARD // (2 * width)))
        left, n = left - SHARD, n + 1
    files = {name: f"model-{n + 1:05}-of-{len(sizes):05}.safetensors" for n, (name, _) in enumerate(sizes)}
    for name, count in sizes:
        nbytes = count * width * 2
        header = {name: {"dtype": "BF16", "shape": [count, width], "data_offsets": [0, nbytes]}}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / files[name], "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            while nbytes:
                nbytes -= file.write(memoryview(block).cast("B")[: min(nbytes, block.nbytes)])
    index = {"metadata": {"total_size": sum(2 * width * count for _, count in sizes)}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def transplant(work: Path, tokenizer: Path, *flags: str) -> dict[str, Any]:
    """Run a transplant in a process of its own. Return its seconds by stage, and its peak memory in bytes."""
    os.sync()
    command = [sys.executable, "-c", RUN, str(work / "source"), str(tokenizer), str(work / "out"), *flags]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(out.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def scale(work: Path, gigabytes: float) -> None:
    """Run the large case once and keep its figures."""
    gemma, smollm2 = (resolve_model(str(fetch(name))) for name in ("gemma", "smollm2"))
    target = write_target(read_tokenizer(gemma), work / "target")
    (work / "source").mkdir()
    begin = time.perf_counter()
    make_checkpoint(work / "source", smollm2, gigabytes, SCALE_WIDTH, tied=False)
    os.sync()
    print(f"source written in {time.perf_counter() - begin:.0f} s", flush=True)
    result: dict[str, Any] = {"rows": SCALE_ROWS, "width": SCALE_WIDTH, "source_bytes": _size(work / "source")}
    for name, flags in (("linked", ["subword", "link"]), ("copied", ["mean"])):
        result[name] = {**transplant(work, target, *flags), "bytes": _size(work / "out")}
        shutil.rmtree(work / "out")
        print(name, result[name], flush=True)
    result["cp"], result["cp_synced"] = timed_copy(work / "source", work / "copy")
    print(f"cp of the source {result['cp']:.0f} s, synced {result['cp_synced']:.0f} s")
    print("kept in", keep("scale", result))


def write_target(tokenizer: Tokenizer, folder: Path) -> Path:
    """Write a tokenizer with the first SCALE_ROWS tokens of another one."""
    folder.mkdir()
    for name, content in trim_tokenizer(tokenizer, range(SCALE_ROWS)).tokenizer.output_files().items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    return folder


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def timed_copy(source: Path, target: Path) -> tuple[float, float]:
    """Return the seconds of `cp -r`, and of `cp -r` followed by an fsync of every file."""
    os.sync()
    begin = time.perf_counter()
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)
    copied = time.perf_counter() - begin
    for path in target.iterdir():
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    synced = time.perf_counter() - begin
    shutil.rmtree(target)
    return copied, synced


def compare(work: Path, gigabytes: float, count: int) -> tuple[list[dict[str, Any]], int]:
    """Time transplants and copies in turn. Return the figures of each run, and the bytes of a vocabulary matrix."""
    gemma, smollm2 = (resolve_model(str(fetch(name))) for name in ("gemma", "smollm2"))
    (work / "source").mkdir()
    make_checkpoint(work / "source", gemma, gigabytes)
    runs: list[dict[str, Any]] = []
    for n in range(count + 1):  # the first run warms the page cache
        result = transplant(work, smollm2, "subword")
        copied, synced = timed_copy(work / "out", work / "copy")
        size = _size(work / "out")
        shutil.rmtree(work / "out")
        if n:
            seconds, peak = result["seconds"], result["peak"]
            times = {"write": seconds["write"], "cp": copied, "cp_synced": synced, "all": seconds["all"]}
            runs.append({**times, "peak": peak, "bytes": size})
            print(
                f"write {seconds['write']:.2f} s, cp {copied:.2f} s, cp synced {synced:.2f} s, peak {peak / 1e6:.0f} MB"
            )
    rows: int = json.loads((gemma / "config.json").read_text())["vocab_size"]
    return runs, rows * WIDTH * 2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, help="size of the source; 4, or 30 with --scale")
    parser.add_argument("--scale", action="store_true", help="one run of the large case")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", help="where to write, on the disk to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        if options.scale:
            scale(Path(name), options.gigabytes or 30.0)
            return
        runs, matrix_bytes = compare(Path(name), options.gigabytes or 4.0, options.runs)
    summary = {
        "bytes_written": runs[0]["bytes"],
        "largest_table_bytes": matrix_bytes,
        "write_over_cp": spread([run["write"] / run["cp"] for run in runs]),
        "write_over_cp_synced": spread([run["write"] / run["cp_synced"] for run in runs]),
        "peak_bytes": spread([run["peak"] for run in runs]),
        "memory_limit_bytes": 3 * matrix_bytes + 500_000_000,
        "runs": runs,
    }
    for key in ("write_over_cp", "write_over_cp_synced"):
        print(f"{key}: {summary[key]['median']:.2f} ({summary[key]['least']:.2f} to {summary[key]['most']:.2f})")
    limit = summary["memory_limit_bytes"] / 1e6
    print(f"peak {summary['peak_bytes']['median'] / 1e6:.0f} MB; 3 matrices + 500 MB = {limit:.0f} MB")
    print("kept in", keep("write", summary))


if __name__ == "__main__":
    main()
