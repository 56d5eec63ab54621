"""OMP side by side: mergekit, scikit-learn, and tokswap exact and fast, on the same pair with the same k in one run.

    python benchmarks/omp.py [--mergekit PYTHON] [--pair gemma-smollm2|smollm2-gemma] [--tokens N] [--scaling]

gemma-smollm2 puts SmolLM2's tokenizer on Gemma-3-270m (2,990 missing tokens, 46 thousand anchors of width 576).
smollm2-gemma is the reverse (209,642 missing tokens, anchors of width 640). There, --tokens takes a random part of the
missing tokens for the slow methods.

--mergekit names the Python of an environment with mergekit==0.1.5. Its tokensurgeon runs as a whole process on the
checkpoints. The sweep count of a method is its wall time over that of one float32 matrix product of all missing tokens
with all anchors (M x D times D x N), measured in the same run. This figure is about the same on every machine.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from _machine import keep, spread
from _peers import for_mergekit

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models import fetch

from tokswap.checkpoint.embeddings import Columns, EmbeddingSpace
from tokswap.checkpoint.reader import open_checkpoint
from tokswap.evaluation.losses import bits_per_byte
from tokswap.evaluation.models import load_model
from tokswap.init.base import Pieces, Problem
from tokswap.init.methods.omp import OMP
from tokswap.init.pursuit.solve import orthogonal_matching_pursuit
from tokswap.storage.resolve import resolve_model
from tokswap.tokenizer.alignment import align
from tokswap.tokenizer.tokenizer import read_tokenizer

K = 64
TEXTS = Path(__file__).parent.parent / "tests" / "texts"


def problem(model: Path, tokenizer: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, Any]:
    """Return unit atoms [N, D], targets [M, D], anchor ids and the alignment of a pair."""
    source, target = read_tokenizer(model), read_tokenizer(tokenizer)
    alignment = align(target.vocabulary, source.vocabulary, bos_first=source.adds_bos)
    spaces = []
    for folder, own in ((model, source), (tokenizer, target)):
        checkpoint = open_checkpoint(folder)
        matrix = checkpoint.matrices[0]
        spaces.append(EmbeddingSpace(own.vocabulary, [Columns(checkpoint.raw_rows(matrix.names[0]), matrix.dtype)]))
    empty = Pieces.from_lists([[] for _ in alignment.missing])
    task = Problem(
        source=spaces[0],
        donor=spaces[1],
        target=target.vocabulary,
        alignment=alignment,
        missing=alignment.missing,
        pieces=empty,
    )
    anchors = OMP()._atoms(task)
    rows = spaces[1].rows(anchors)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), spaces[1].rows(alignment.missing), anchors, alignment


def sweep_seconds(atoms: np.ndarray, targets: np.ndarray) -> float:
    """Return the time of one float32 product of all targets with all atoms: the best of three runs with 512 targets."""
    import torch

    some, full = torch.from_numpy(targets[:512]), torch.from_numpy(atoms)
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        some @ full.T
        times.append(time.perf_counter() - begin)
    return min(times) * len(targets) / len(some)


def measured(work: Any) -> tuple[Any, dict[str, float]]:
    """Run a function. Return its result, and its wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, {"wall_s": round(time.perf_counter() - wall, 2), "cpu_s": round(time.process_time() - cpu, 2)}


def excess(source: Path, result: Path) -> dict[str, float]:
    """Return the excess bits per byte of a result on two texts."""
    found = {}
    models = {name: load_model(folder) for name, folder in (("before", source), ("after", result))}
    for name in ("english", "code"):
        text = (TEXTS / f"{name}.txt").read_text("utf-8")
        bits = {when: bits_per_byte(*pair, text).bits_per_byte for when, pair in models.items()}
        found[name] = round(bits["after"] - bits["before"], 4)
    return found


def kernels(atoms: np.ndarray, targets: np.ndarray, sklearn_tokens: int, exact: bool) -> dict[str, Any]:
    """Time only the solvers, on the same atoms and targets."""
    from sklearn.linear_model import orthogonal_mp

    rows: dict[str, Any] = {}
    orthogonal_matching_pursuit(atoms[:5000], targets[:4], 4)  # compile first
    runs: list[tuple[str, dict[str, Any]]] = [("fast", {}), *([("exact", {"exact": True})] if exact else [])]
    codes = {}
    for name, options in runs:
        one = sweep_seconds(atoms, targets)
        code, cost = measured(lambda options=options: orthogonal_matching_pursuit(atoms, targets, K, **options))
        codes[name] = code
        rows[name] = {
            **cost,
            "tokens": len(targets),
            "sweep_count": round(cost["wall_s"] / one, 2),
            "one_sweep_s": round(one, 3),
            "low_precision_sweeps": round(code.sweeps, 2),
            "mean_residual": round(float(code.residual.mean()), 5),
        }
        print(f"{name:8}{rows[name]}", flush=True)
    if sklearn_tokens:
        some = np.random.default_rng(0).permutation(len(targets))[:sklearn_tokens]
        dictionary = atoms.astype(np.float64)
        dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wanted = targets[some].T.astype(np.float64)
            weights, cost = measured(lambda: orthogonal_mp(dictionary.T, wanted, n_nonzero_coefs=K))
        left = np.linalg.norm(wanted - dictionary.T @ weights, axis=0) / np.linalg.norm(wanted, axis=0)
        one = sweep_seconds(atoms, targets) * len(some) / len(targets)
        rows["scikit-learn"] = {
            **cost,
            "tokens": len(some),
            "sweep_count": round(cost["wall_s"] / one, 1),
            "mean_residual": round(float(left.mean()), 5),
        }
        for name, code in codes.items():
            supports = [set(np.flatnonzero(weights[:, n]).tolist()) for n in range(len(some))]
            own = [set(code.atoms[i][: code.support[i]].tolist()) for i in some]
            rows[name]["same_support_as_scikit_learn"] = float(
                np.mean([a == b for a, b in zip(own, supports, strict=True)])
            )
            rows[name]["worst_residual_difference"] = float(np.abs(code.residual[some] - left).max())
            print(f"{name}: support as scikit-learn's {rows[name]['same_support_as_scikit_learn']:.3f}", flush=True)
        print(f"sklearn {rows['scikit-learn']}", flush=True)
    return rows


def whole(model: Path, tokenizer: Path, mergekit: str | None, work: Path, exact: bool, pairs: int) -> dict[str, Any]:
    """Time whole transplants by tokswap and mergekit in turn, as processes of their own, and score the results."""
    rows: dict[str, Any] = {}
    ours = [sys.executable, "-m", "tokswap", "transplant", "--model", str(model), "--tokenizer", str(tokenizer)]
    ours += ["--init", "omp", "--quiet", "--out"]
    commands = {"fast": [*ours, str(work / "fast")]}
    if exact:
        commands["exact"] = [*ours, str(work / "exact"), "--set", "exact=true"]
    if mergekit:
        surgeon = "from mergekit.scripts.tokensurgeon import main; main()"
        commands["mergekit"] = [
            mergekit,
            "-c",
            surgeon,
            str(for_mergekit(model, work)),
            str(for_mergekit(tokenizer, work)),
            str(work / "mergekit"),
            "-k",
            str(K),
        ]
    order = [name for name in ("fast", "mergekit") if name in commands] * pairs + ["exact"] * exact
    costs: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for name in order:
        command = commands[name]
        shutil.rmtree(work / name, ignore_errors=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        peak = 0
        while process.poll() is None:  # VmHWM is the peak of this child, and rusage that of the largest one
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
                peak = max([peak, *(int(s.split()[1]) * 1024 for s in status.splitlines() if s.startswith("VmHWM"))])
            except OSError:
                pass
            time.sleep(0.05)
        wall = time.perf_counter() - begin
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if process.returncode:
            raise SystemExit(f"{name} failed with status {process.returncode}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        costs[name].append({"wall_s": round(wall, 1), "cpu_s": round(cpu, 1), "peak_mb": round(peak / 1e6)})
        print(f"whole process, {name}: {costs[name][-1]}", flush=True)
    for name, runs in costs.items():
        rows[name] = {key: round(statistics.median(run[key] for run in runs), 1) for key in runs[0]} | {"runs": runs}
        if name == "mergekit":
            # Score the rows and not the template: a text must begin with bos, as it does for tokswap.
            for file in ("tokenizer.json", "tokenizer_config.json"):
                (work / name / file).write_bytes((work / "fast" / file).read_bytes())
        rows[name]["excess"] = excess(model, work / name)
        print(f"whole process, {name}: {rows[name]}", flush=True)
    if mergekit:
        turns = zip(costs["fast"], costs["mergekit"], strict=True)
        rows["times_faster"] = spread([theirs["wall_s"] / own["wall_s"] for own, theirs in turns])
        print(f"mergekit over fast, wall: {rows['times_faster']}")
    return rows


def scaling() -> list[dict[str, Any]]:
    """Measure sweep counts over M, N, D and k, on random rows with the spectrum of embeddings."""
    rng = np.random.default_rng(0)
    points = []
    orthogonal_matching_pursuit(np.eye(64, dtype=np.float32).repeat(100, 0), np.ones((2, 64), np.float32), 4)  # compile
    base = {"N": 32768, "D": 512, "M": 1024, "k": 64}
    grid = [base] + [
        {**base, key: value}
        for key, values in {"N": (8192, 131072), "D": (256, 2048), "M": (256, 4096), "k": (16, 128)}.items()
        for value in values
    ]
    for point in grid:
        shape = rng.standard_normal((point["D"], point["D"]), np.float32) * (1 + np.arange(point["D"])) ** -0.25
        rows = rng.standard_normal((point["N"] + point["M"], point["D"]), np.float32) @ shape.T.astype(np.float32)
        rows += rows.std() * 0.5
        atoms, targets = rows[: point["N"]], rows[point["N"] :]
        atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
        one = sweep_seconds(atoms, targets)
        code, cost = measured(lambda a=atoms, t=targets, k=point["k"]: orthogonal_matching_pursuit(a, t, k))
        points.append(
            {
                **point,
                **cost,
                "sweep_count": round(cost["wall_s"] / one, 2),
                "low_precision_sweeps": round(code.sweeps, 2),
            }
        )
        print(points[-1], flush=True)
    return points


def large() -> dict[str, Any]:
    """Solve with a dictionary as large as that of an 8B model, and measure the memory besides the dictionary."""
    count, width, targets, k, memory = 131072, 4096, 256, 64, 1 << 30
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((count + targets, width), np.float32)
    rows *= (1 + np.arange(width, dtype=np.float32)) ** -0.25
    rows += 0.02
    atoms, wanted = rows[:count], rows[count:].copy()
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    one = sweep_seconds(atoms, wanted)
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before = _status("VmHWM")
    code, cost = measured(lambda: orthogonal_matching_pursuit(atoms, wanted, k, memory=memory))
    return {
        "N": count,
        "D": width,
        "M": targets,
        "k": k,
        "memory_budget_mb": memory >> 20,
        "dictionary_mb": atoms.nbytes >> 20,
        **cost,
        "sweep_count": round(cost["wall_s"] / one, 2),
        "low_precision_sweeps": round(code.sweeps, 2),
        "peak_besides_float32_dictionary_mb": round((_status("VmHWM") - before) / (1 << 20)),
        "mean_residual": round(float(code.residual.mean()), 4),
    }


def _status(key: str) -> int:
    """Return an entry of the memory status of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mergekit", help="python of an environment with mergekit 0.1.5")
    parser.add_argument("--pair", default="gemma-smollm2", choices=["gemma-smollm2", "smollm2-gemma"])
    parser.add_argument("--tokens", type=int, default=0, help="solve a random part of the missing tokens")
    parser.add_argument("--sklearn-tokens", type=int, default=200)
    parser.add_argument("--no-exact", action="store_true")
    parser.add_argument("--no-whole", action="store_true")
    parser.add_argument("--pairs", type=int, default=3, help="how often whole processes are timed in turn")
    parser.add_argument("--scaling", action="store_true", help="measure only the scaling curves")
    parser.add_argument(
        "--large", action="store_true", help="measure only a dictionary of 131,072 atoms of width 4,096"
    )
    options = parser.parse_args()
    if options.large:
        found = large()
        print(found)
        print("kept in", keep("omp-large", found))
        return
    if options.scaling:
        print("kept in", keep("omp-scaling", {"points": scaling()}))
        return
    first, second = options.pair.split("-")
    model, tokenizer = (resolve_model(str(fetch(name))) for name in (first, second))
    atoms, targets, _, _ = problem(model, tokenizer)
    if options.tokens:
        targets = targets[np.random.default_rng(0).permutation(len(targets))[: options.tokens]]
    result: dict[str, Any] = {
        "pair": options.pair,
        "k": K,
        "N": len(atoms),
        "D": atoms.shape[1],
        "M": len(targets),
        "solver": kernels(atoms, targets, options.sklearn_tokens, not options.no_exact),
    }
    if not options.no_whole:
        with tempfile.TemporaryDirectory() as work:
            result["whole_process"] = whole(
                model, tokenizer, options.mergekit, Path(work), not options.no_exact, options.pairs
            )
    print("kept in", keep(f"omp-{options.pair}", result))


if __name__ == "__main__":
    main()
