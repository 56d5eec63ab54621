"""The peak memory of a run where the vocabulary matrix is larger than all else, and what the plan says about it."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WIDTH = 32768
RUN = """
import json, re, sys
import torch, tokswap

def memory(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

job = tokswap.plan_transplant(sys.argv[1], sys.argv[2], out=sys.argv[3], init="subword", progress=False)
before = memory("VmRSS")
job.run()
said = job.plan.estimate.memory_bytes
print(json.dumps({"before": before, "peak": memory("VmHWM"), "estimate": said}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_bounded_by_the_matrix(
    tokenizer_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    write_model: Callable[[Path, Path, int], int] = runpy.run_path(str(ROOT / "benchmarks" / "memory.py"))[
        "write_model"
    ]
    rows = [
        write_model(tokenizer_of("byte-level", vocab_size=size), tmp_path / name, WIDTH)
        for name, size in (("source", 400), ("donor", 2600))
    ]
    command = [sys.executable, "-c", RUN, *(str(tmp_path / name) for name in ("source", "donor", "out"))]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    matrix = 2 * max(rows) * WIDTH
    # In float32 the new rows alone would take 1.7 matrices.
    assert found["peak"] - found["before"] < 1.5 * matrix, found
    assert found["estimate"] == pytest.approx(found["peak"], rel=0.25), found
