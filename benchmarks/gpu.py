"""Everything that a GPU is asked, in one run of at most eight minutes that writes one JSON file.

    python benchmarks/gpu.py --models FOLDER --out gpu.json [--device cuda] [--minutes 8] [--tiny] [--parts NAME ...]

FOLDER holds the GGUF files of both demo models (`python examples/models.py` fetches them). The parts are the tests marked
`device`, matching pursuit, kriging and tokenadapt, the prediction of a hypernetwork, and steps of healing. Results are
compared with the CPU in float32; the run fails where one is further away than its bound. The file is written after each
part, and a part that no longer has time is left out. `--tiny` is the same on small inputs, for a CPU.
`heal_gpu.py` measures what healing leaves on a GPU.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import _gpu_parts as parts
import torch
from _machine import machine

LONGEST_TESTS = 180
"""Seconds after which the tests are stopped."""


def main(argv: list[str] | None = None) -> int:
    """Run the parts. Return 0 where all have run and are within their bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, help="folder with the GGUF files of the demo models")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--parts", nargs="*", default=["tests", "pursuit", "methods", "hypernet", "healing"])
    given = parser.parse_args(argv)
    end = time.monotonic() + 60 * given.minutes
    sizes = parts.TINY if given.tiny else parts.Sizes()
    with tempfile.TemporaryDirectory() as scratch:
        work: dict[str, Callable[[], Mapping[str, Any]]] = {
            "tests": lambda: tests(given.device, min(LONGEST_TESTS, end - time.monotonic())),
            "pursuit": partial(parts.pursuit, sizes, given.device),
            "methods": partial(parts.methods, sizes, given.device),
            "hypernet": partial(parts.hypernet, sizes, given.device),
            "healing": lambda: parts.healing(sizes, given.device, given.models, Path(scratch)),
        }
        found: dict[str, Any] = {"date": datetime.date.today().isoformat(), "machine": described(given.device)}
        found["parts"] = {}
        for name in given.parts:
            found["parts"][name] = one = measured(work[name], given.device, end)
            print(f"{end - time.monotonic():5.0f} s left  {name}: {json.dumps(one)}", flush=True)
            found["healthy"] = all(map(healthy, found["parts"].values()))
            given.out.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    return 0 if found["healthy"] else 1


def measured(part: Callable[[], Mapping[str, Any]], device: str, end: float) -> dict[str, Any]:
    """Run a part; return what it found, its seconds and the most memory of the device, or why it failed."""
    if time.monotonic() > end:
        return {"failed": "no time was left"}
    begin = time.perf_counter()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        found = dict(part())
    except Exception:  # the other parts still run
        found = {"failed": traceback.format_exc()[-1500:]}
    found["whole_seconds"] = round(time.perf_counter() - begin, 1)
    if device == "cuda":
        found["peak_device_memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return found


def healthy(found: Any) -> bool:
    """Say whether nothing in a part has failed."""
    if not isinstance(found, Mapping):
        return True
    return "failed" not in found and found.get("holds", True) and all(map(healthy, found.values()))


def tests(device: str, seconds: float) -> dict[str, Any]:
    """Run the tests marked `device` on the device."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "device", "-p", "no:cacheprovider", "tests/test_device.py"]
    process = subprocess.run(
        command,
        cwd=parts.ROOT,
        env={**os.environ, "TOKSWAP_TEST_DEVICE": device, "PYTHONPATH": str(parts.ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=max(seconds, 1.0),
    )
    lines = process.stdout.splitlines()
    return {"said": lines[-1:], **({"failed": "\n".join(lines[-60:])} if process.returncode else {})}


def described(device: str) -> dict[str, Any]:
    """Describe the machine and its device."""
    name = torch.cuda.get_device_name() if device == "cuda" else None
    return {**machine(), "device": name, "cuda": torch.version.cuda}


if __name__ == "__main__":
    sys.exit(main())
