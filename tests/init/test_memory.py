"""The peak memory of a run where the vocabulary matrix is larger than all else, and what the plan says about it."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypernets
import numpy as np
import pytest

from tokswap.checkpoint.embeddings import EmbeddingSpace
from tokswap.init.base import Context
from tokswap.init.methods._normal import NormalEquations
from tokswap.init.methods.kriging import Kriging

ROOT = Path(__file__).parents[2]
WIDTH, MANY = 32768, 2600
MATRIX = 2 * MANY * WIDTH
RUN = """
import json, re, sys
import torch, tokswap

def memory(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

job = getattr(tokswap, "plan_" + sys.argv[1])(*json.loads(sys.argv[2]), **json.loads(sys.argv[3]), progress=False)
before = memory("VmRSS")
job.run()
said = job.plan.estimate.memory_bytes
print(json.dumps({"before": before, "peak": memory("VmHWM"), "estimate": said}))
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def models(tokenizer_of: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model with few rows, one with many, one with a lm_head of its own, and a hypernetwork for it."""
    folder = tmp_path_factory.mktemp("wide")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        write_model: Callable[..., int] = runpy.run_path(str(ROOT / "benchmarks" / "memory.py"))["write_model"]
    few, many = (tokenizer_of("byte-level", vocab_size=size) for size in (400, MANY))
    write_model(few, folder / "few", WIDTH)
    write_model(many, folder / "many", WIDTH)
    write_model(many, folder / "untied", WIDTH // 4, tied=False)
    hypernets.make_hypernet(folder / "untied", folder / "hypernet", hn_n_extra_tokens=0)
    return {path.name: path for path in folder.iterdir()}


def measured(command: str, names: list[Path], **options: object) -> dict[str, int]:
    """Run a command in a process of its own."""
    given = (json.dumps([str(path) for path in names]), json.dumps(options, default=str))
    run = subprocess.run([sys.executable, "-c", RUN, command, *given], check=True, capture_output=True, text=True)
    found: dict[str, int] = json.loads(run.stdout)
    return found


def test_memory_is_bounded_by_the_matrix(models: dict[str, Path], tmp_path: Path) -> None:
    found = measured("transplant", [models["few"], models["many"]], out=tmp_path / "out", init="subword")
    # In float32 the new rows alone would take 1.7 matrices.
    assert found["peak"] - found["before"] < 1.5 * MATRIX, found
    assert found["estimate"] == pytest.approx(found["peak"], rel=0.25), found


def test_a_hypernetwork_reads_the_source_rows_that_it_needs(models: dict[str, Path], tmp_path: Path) -> None:
    options = {"init": "zett", "settings": {"path": models["hypernet"], "replace": "yes"}, "out": tmp_path / "out"}
    found = measured("transplant", [models["untied"], models["few"]], **options)
    # In float32 both matrices of the source would take another MATRIX.
    assert found["peak"] - found["before"] < 1.5 * MATRIX, found
    assert found["estimate"] == pytest.approx(found["peak"], rel=0.25), found


def test_an_extension_counts_no_donor(models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_text("harbourmaster\n")
    found = measured("extend", [models["many"]], out=tmp_path / "out", tokens=[tmp_path / "terms.txt"])
    assert found["estimate"] == pytest.approx(found["peak"], rel=0.25), found


def test_normal_equations_hold_half_of_the_gram_matrix() -> None:
    width, rng = 3072, np.random.default_rng(0)
    features, targets = (rng.standard_normal((64, size), np.float32) for size in (width, 5))
    tracemalloc.start()
    try:
        equations = NormalEquations(width, 5)
        equations.add(features, targets)
        found = equations.solve(0.1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.85 * 8 * width**2
    gram = features.T.astype(np.float64) @ features
    gram[np.diag_indices(width)] += 0.1 * np.trace(gram) / width
    np.testing.assert_allclose(gram @ found, features.T @ targets, atol=1e-3)


def test_kriging_holds_no_residuals() -> None:
    anchors, missing, width = 40_000, 20, 64
    rng = np.random.default_rng(0)
    spaces = [
        EmbeddingSpace.from_array([], rng.standard_normal((size, width), np.float32))  # type: ignore[arg-type]
        for size in (anchors, anchors + missing)
    ]
    problem: Any = SimpleNamespace(
        source=spaces[0],
        donor=spaces[1],
        anchors=np.arange(anchors),
        missing=np.arange(anchors, anchors + missing),
        alignment=SimpleNamespace(source_of=np.arange(anchors)),
        pieces=SimpleNamespace(start=2 * np.arange(missing + 1), ids=rng.integers(0, anchors, 2 * missing)),
        merge_pairs=lambda ids: np.stack([ids // 2, ids // 3], axis=1),
        context=Context(memory=1 << 20),
    )
    tracemalloc.start()
    try:
        assert len(Kriging(neighbours=4)(problem).rows) == missing
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * anchors * width
