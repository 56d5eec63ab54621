"""Writing speed and peak memory: a checkpoint of several GB, against `cp` of the same files.

    python benchmarks/write.py [--gigabytes 4] [--runs 5] [--folder DIR]

The checkpoint is synthetic: a real tokenizer (Gemma's) with a random table, and layers of random bytes in shards of
500 MB. Each run times, one after the other with the disk idle at the start of each:

    cp          cp -r of the finished result (returns when the bytes are in the page cache)
    cp, synced  the same, and then an fsync of every file (what a durable copy costs)
    tokswap     the write stage of a transplant onto SmolLM2's tokenizer, which ends with every file fsynced

and the peak memory of the whole tokswap process.
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

from tokswap.sources import resolve_model

WIDTH = 1024
SHARD = 500_000_000
RUN = """
import json, resource, sys
import tokswap
report = tokswap.transplant(sys.argv[1], sys.argv[2], init="subword", out=sys.argv[3])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": report.seconds, "peak": peak}))
"""


def make_checkpoint(folder: Path, tokenizer: Path, gigabytes: float) -> None:
    """Write a sharded checkpoint: one vocabulary table, and layers of random bytes."""
    for path in tokenizer.glob("*"):
        if path.suffix != ".safetensors":
            shutil.copy(path, folder / path.name)
    rows = json.loads((tokenizer / "config.json").read_text())["vocab_size"]
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH, "vocab_size": rows,
        "intermediate_size": 4 * WIDTH, "num_hidden_layers": 1, "num_attention_heads": 8, "tie_word_embeddings": True,
        "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    noise = np.random.default_rng(0).standard_normal(32 << 20, np.float32) * 0.02
    block = (noise.view(np.uint32) >> 16).astype(np.uint16)  # bfloat16 by truncation
    sizes = [("model.embed_tokens.weight", rows)]
    left, n = int(gigabytes * 1e9) - rows * WIDTH * 2, 0
    while left > 0:
        sizes.append((f"model.layers.{n}.mlp.up_proj.weight", SHARD // (2 * WIDTH)))
        left, n = left - SHARD, n + 1
    files = {name: f"model-{n + 1:05}-of-{len(sizes):05}.safetensors" for n, (name, _) in enumerate(sizes)}
    for name, count in sizes:
        nbytes = count * WIDTH * 2
        header = {name: {"dtype": "BF16", "shape": [count, WIDTH], "data_offsets": [0, nbytes]}}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / files[name], "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            while nbytes:
                nbytes -= file.write(memoryview(block).cast("B")[: min(nbytes, block.nbytes)])
    index = {"metadata": {"total_size": sum(2 * WIDTH * count for _, count in sizes)}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", help="where to write; the disk that is measured")
    options = parser.parse_args()
    gemma, smollm2 = (resolve_model(str(fetch(name))) for name in ("gemma", "smollm2"))
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        work = Path(name)
        (work / "source").mkdir()
        make_checkpoint(work / "source", gemma, options.gigabytes)
        table_bytes = json.loads((gemma / "config.json").read_text())["vocab_size"] * WIDTH * 2
        for n in range(options.runs + 1):  # the first run warms the page cache
            os.sync()
            out = subprocess.run(
                [sys.executable, "-c", RUN, str(work / "source"), str(smollm2), str(work / "out")],
                check=True, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            result = json.loads(out.stdout.splitlines()[-1])
            copied, synced = timed_copy(work / "out", work / "copy")
            size = sum(path.stat().st_size for path in (work / "out").iterdir())
            shutil.rmtree(work / "out")
            if n:
                write = result["seconds"]["write"]
                runs.append({"write": write, "cp": copied, "cp_synced": synced, "all": result["seconds"]["all"],
                             "peak": result["peak"], "bytes": size})  # fmt: skip
                print(
                    f"write {write:.2f} s, cp {copied:.2f} s, cp synced {synced:.2f} s, peak {result['peak'] / 1e6:.0f} MB"
                )
    summary = {
        "bytes_written": runs[0]["bytes"],
        "largest_table_bytes": table_bytes,
        "write_over_cp": spread([run["write"] / run["cp"] for run in runs]),
        "write_over_cp_synced": spread([run["write"] / run["cp_synced"] for run in runs]),
        "peak_bytes": spread([run["peak"] for run in runs]),
        "memory_limit_bytes": 3 * table_bytes + 500_000_000,
        "runs": runs,
    }
    for key in ("write_over_cp", "write_over_cp_synced"):
        print(f"{key}: {summary[key]['median']:.2f} ({summary[key]['least']:.2f} to {summary[key]['most']:.2f})")
    print(
        f"peak {summary['peak_bytes']['median'] / 1e6:.0f} MB; 3 tables + 500 MB = {summary['memory_limit_bytes'] / 1e6:.0f} MB"
    )
    print("kept in", keep("write", summary))


if __name__ == "__main__":
    main()
