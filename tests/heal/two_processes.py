"""What each of two processes does in test_processes.py; the name of a file with its settings is the argument."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

import tokswap
from tokswap.heal import shards
from tokswap.heal.team import Team

torch.set_num_threads(1)
RANK = Team.of("cpu").rank


def healed(one: dict[str, Any]) -> dict[str, Any]:
    return dict(tokswap.heal_model(one["model"], one["texts"], **one["options"]).healing)


def parts(model: Path) -> list[float]:
    """The share of the layers that each process holds, and of all else."""
    from transformers import AutoModelForCausalLM

    whole = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    team = Team.of("cpu")
    divided = shards.load_divided(lambda: AutoModelForCausalLM.from_pretrained(model), team, "cpu")
    counts = {True: [0, 0], False: [0, 0]}
    pairs = zip(divided.parameters(), whole.parameters(), strict=True)
    for own, full in pairs:
        count = counts[shards.is_divided(own)]
        count[0] += own.to_local().numel() if shards.is_divided(own) else own.numel()
        count[1] += full.numel()
    return [counts[kind][0] / counts[kind][1] for kind in (True, False)]


def main() -> None:
    given = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    found: dict[str, Any] = {name: healed(one) for name, one in given["healings"].items()}
    found["parts"] = parts(given["model"])
    clock = time.perf_counter
    time.perf_counter = lambda: clock() * (1 + 4000 * RANK)  # a process that takes its teacher to be slow
    found["uneven"] = healed(given["uneven"])
    if RANK == 0:
        Path(given["found"]).write_text(json.dumps(found), "utf-8")


main()
