"""What a hypernetwork costs: rows a second with and without bucketing, and the time of each part of a training step.

    python benchmarks/hypernet.py MODEL [--text FILE] [--tokens 50000] [--hidden N] [--layers 3] [--steps 20]

MODEL is any causal language model. The network is not trained, since its cost does not depend on what it predicts. The
tokens are words of the text and parts of them, as sampled tokenizers have them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _machine import keep

from tokswap.hypernet import Hypernet, TrainSettings
from tokswap.hypernet.prepare import prepare
from tokswap.hypernet.sampling import Sampler
from tokswap.hypernet.train import train
from tokswap.tokenizer.vocabulary import byte_level_bytes

TEXT = Path(__file__).parent.parent / "tests" / "texts" / "english.txt"


def padded(hypernet: Hypernet, forms: np.ndarray, source: Any) -> None:
    """Run the same network without bucketing: every form is padded to the longest, and every piece is projected."""
    network, block = hypernet.network, 4096
    with torch.inference_mode():
        for start in range(0, len(forms), block):
            ids = torch.from_numpy(forms[start : start + block]).long()
            x = network.input_projection(network._look_up(ids.reshape(-1), source)).reshape(*ids.shape, -1)
            network._heads(network._encode(x, ids, None))


def rows_a_second(work: Any, count: int, repeats: int = 3) -> dict[str, float]:
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return {"rows_a_second": round(count / statistics.median(times), 1), "seconds": round(statistics.median(times), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--text", type=Path, default=TEXT)
    parser.add_argument("--tokens", type=int, default=50000)
    parser.add_argument("--hidden", type=int, default=0)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--vocabulary", type=int, default=16384)
    parser.add_argument("--negatives", type=int, default=1024)
    args = parser.parse_args()
    settings = TrainSettings(
        steps=args.steps,
        identity_steps=0,
        batch=args.batch,
        length=args.length,
        vocabulary=args.vocabulary,
        negatives=args.negatives,
        hidden=args.hidden,
        layers=args.layers,
        save_every=args.steps,
    )
    trainer = prepare(args.model, [args.text], settings)
    surface = trainer.batches.surface
    sampler = Sampler(args.tokens)
    sampler.push([args.text.read_text("utf-8")])
    tokens = sampler.sample(0).tokens
    begin = time.perf_counter()
    forms = surface.forms([byte_level_bytes(token) for token in tokens])
    tokenizing = time.perf_counter() - begin
    hypernet = Hypernet(surface.config, trainer.network.eval(), surface)
    source = trainer.base.source
    lengths = (forms != surface.config.pad_token_id).sum(axis=1)
    result: dict[str, Any] = {
        "tokens": len(tokens),
        "mean_pieces": round(float(lengths.mean()), 2),
        "hidden": surface.config.hn_hidden_size,
        "layers": args.layers,
        "tokenizing_seconds": round(tokenizing, 2),
        "bucketed": rows_a_second(lambda: hypernet(forms, source), len(forms)),
        "padded": rows_a_second(lambda: padded(hypernet, forms, source), len(forms)),
    }
    result["times_faster"] = round(result["bucketed"]["rows_a_second"] / result["padded"]["rows_a_second"], 2)
    for key, value in result.items():
        print(f"{key:16}{value}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        train(args.model, [args.text], out, settings)
        lines = [json.loads(line) for line in (out / "training" / "metrics.jsonl").read_text().splitlines()][2:]
    parts = ("seconds", "sampling_seconds", "hypernet_seconds", "model_seconds")
    result["step"] = {part: round(statistics.median(line[part] for line in lines), 4) for part in parts}
    result["step"]["candidates"] = statistics.median(line["candidates"] for line in lines)
    print(f"{'step':16}{result['step']}")
    print(keep("hypernet", result))


if __name__ == "__main__":
    main()
