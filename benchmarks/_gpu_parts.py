"""The parts of `gpu.py`: what each measures on a device, and how far it may be from the CPU in float32."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _heal_speed import speed, wait

from tokswap.checkpoint.embeddings import EmbeddingSpace
from tokswap.hypernet import Hypernet, HypernetConfig
from tokswap.hypernet.model import Network
from tokswap.init.base import Context, Pieces, Problem, Tokenizers
from tokswap.init.pursuit.code import SparseCode
from tokswap.init.pursuit.solve import orthogonal_matching_pursuit
from tokswap.init.registry import make_initializer
from tokswap.options.groups import WORK_BYTES
from tokswap.tokenizer.alignment import align
from tokswap.tokenizer.vocabulary import Kind, Vocabulary

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Sizes:
    """How large the parts are.

    Attributes:
        pursuit: Atoms, width, targets and atoms per target of matching pursuit.
        rows: Shared tokens, new tokens and width for kriging and tokenadapt.
        forms: Surface forms, width and source rows for the hypernetwork.
        checked: Rows that the CPU computes too.
        steps: Tokens of a step of healing.
        works: Bytes of memory that a batch of matching pursuit may take.
    """

    pursuit: tuple[int, int, int, int] = (128 << 10, 4096, 16 << 10, 64)
    rows: tuple[int, int, int] = (64 << 10, 16 << 10, 2048)
    forms: tuple[int, int, int] = (16 << 10, 2048, 128 << 10)
    checked: int = 32
    steps: tuple[int, ...] = (512, 4096)
    works: tuple[int, ...] = (WORK_BYTES, 2 << 30)


TINY = Sizes((4500, 96, 24, 6), (300, 40, 16), (50, 16, 80), checked=8, steps=(64,), works=(WORK_BYTES,))


def bound(value: float, most: float) -> dict[str, Any]:
    """Say whether a difference from the CPU is within what is allowed."""
    return {"value": float(f"{value:.3g}"), "most": most, "holds": bool(value <= most)}


def timed(work: Callable[[], Any], device: str) -> tuple[Any, float]:
    """Return what some work returns, and its seconds."""
    wait(device)
    begin = time.perf_counter()
    found = work()
    wait(device)
    return found, time.perf_counter() - begin


def like_embeddings(rows: int, width: int, seed: int = 0) -> np.ndarray:
    """Rows with a decaying spectrum and a common direction, float32 [rows, width]."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(rows, width, generator=generator) * (1 + torch.arange(width)) ** -0.4
    return (found + (1 + torch.arange(width)) ** -0.5).numpy()


def pursuit(sizes: Sizes, device: str) -> dict[str, Any]:
    """Matching pursuit, fast and exact. Copying the dictionary to the device counts."""
    atoms, width, count, k = sizes.pursuit
    rows = like_embeddings(atoms + count, width)
    dictionary, targets = rows[:atoms] / np.linalg.norm(rows[:atoms], axis=1, keepdims=True), rows[atoms:]

    def code(exact: bool, memory: int, most: int | None = None, on: str = device) -> SparseCode:
        return orthogonal_matching_pursuit(
            dictionary, targets[:most], k, exact=exact, tolerance=0.0, memory=memory, device=on
        )

    code(False, WORK_BYTES, sizes.checked)  # the first call loads kernels
    right = code(True, WORK_BYTES, sizes.checked, "cpu")
    found: dict[str, Any] = {"atoms": atoms, "width": width, "targets": count, "k": k}
    for name, exact in (("fast", False), ("exact", True)):
        for memory in sizes.works:
            own, seconds = timed(lambda exact=exact, memory=memory: code(exact, memory), device)
            found[f"{name}, {memory >> 20} MiB"] = {
                "seconds": round(seconds, 2),
                "sweeps": round(own.sweeps, 2),
                "sweep_tflops": float(f"{2e-12 * own.sweeps * count * atoms * width / seconds:.3g}"),
                "residual": round(float(own.residual.mean()), 5),
            }
        part, limit = own.residual[: sizes.checked], 0.001 if exact else 0.005
        found[f"{name}, mean residual over that of the CPU, exact"] = bound(
            part.mean() / right.residual.mean() - 1, limit
        )
        if exact:
            pairs = zip(own.atoms, right.atoms, strict=False)
            other = np.mean([set(ours.tolist()) != set(theirs.tolist()) for ours, theirs in pairs])
            found["exact, share of other supports than on the CPU"] = bound(float(other), 0.05)
    return found


def methods(sizes: Sizes, device: str) -> dict[str, Any]:
    """Kriging and tokenadapt, from spaces in memory to rows in memory."""
    task = _problem(*sizes.rows)
    found: dict[str, Any] = dict(zip(("shared", "new", "width"), sizes.rows, strict=True))
    for name in ("kriging", "tokenadapt"):
        made, seconds = timed(lambda name=name: make_initializer(name)(_on(task, device)).rows, device)
        few = dataclasses.replace(
            task, missing=task.missing[: sizes.checked], pieces=task.pieces[np.arange(sizes.checked)]
        )
        right = make_initializer(name)(_on(few, "cpu")).rows
        away = np.linalg.norm(made[: sizes.checked] - right, axis=1) / np.linalg.norm(right, axis=1)
        found[name] = {"seconds": round(seconds, 2), "difference": bound(float(away.max()), 0.001)}
    return found


def _on(task: Problem, device: str) -> Problem:
    return dataclasses.replace(task, context=Context(device=device))


def _problem(shared: int, new: int, width: int) -> Problem:
    words, random = [f"w{n}" for n in range(shared + new)], np.random.default_rng(0)
    source, target = (
        Vocabulary(text, [word.encode() for word in text], np.full(len(text), Kind.NORMAL, np.uint8))
        for text in (words[:shared], words)
    )
    donor = like_embeddings(shared + new, width, 1)
    mixed = donor[:shared] @ (random.standard_normal((width, width)) / width**0.5).astype(np.float32)
    alignment = align(target, source)
    return Problem(
        source=EmbeddingSpace.from_array(source, mixed + 0.1 * like_embeddings(shared, width, 2)),
        donor=EmbeddingSpace.from_array(target, donor),
        target=target,
        alignment=alignment,
        missing=alignment.missing,
        pieces=Pieces.from_lists(random.integers(0, shared, (new, 2)).tolist()),
        tokenizers=Tokenizers(None, None, random.integers(0, shared, (shared, 2))),  # type: ignore[arg-type]
    )


def hypernet(sizes: Sizes, device: str) -> dict[str, Any]:
    """The prediction of a hypernetwork of three layers, twice as wide as the model."""
    forms, width, rows = sizes.forms
    config = HypernetConfig(
        n_embd=width,
        original_vocab_size=rows,
        hn_hidden_size=2 * width,
        hn_intermediate_size=4 * width,
        hn_num_attention_heads=max(1, width // 64),
    )
    torch.manual_seed(0)
    network, random = Network(config).eval(), np.random.default_rng(0)
    source, ids = like_embeddings(rows, width), random.integers(1, rows, (forms, config.hn_surface_maxlen))
    ids[np.arange(ids.shape[1]) >= random.integers(1, ids.shape[1] + 1, (forms, 1))] = 0
    right = Hypernet(config, network, surface=None)(ids[: sizes.checked], source).input  # type: ignore[arg-type]
    there = Hypernet(config, network.to(device), surface=None, device=device)  # type: ignore[arg-type]
    there(ids[: sizes.checked], source)
    made, seconds = timed(lambda: there(ids, source).input, device)
    away = np.abs(made[: sizes.checked] - right).max() / np.abs(right).max()
    return {
        "forms": forms,
        "width": width,
        "seconds": round(seconds, 2),
        "difference": bound(float(away), 0.001),
    }


def healing(sizes: Sizes, device: str, models: Path, work: Path) -> dict[str, Any]:
    """A step of healing beside a bare training step, on the demo pair; on tiny models where there is no folder."""
    import tokswap

    text = work / "text.txt"
    pages = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    if sizes is TINY:
        sys.path.insert(0, str(ROOT / "tests"))
        import makers

        source, target = (
            makers.make_model("llama", work / name, vocab_size=size)
            for name, size in (("source", 500), ("target", 400))
        )
        pages = [ROOT / "CHANGELOG.md"]
    else:
        source, target = (
            tokswap.storage.resolve.resolve_model(str(models / f"{name}.gguf"))
            for name in ("gemma-3-270m", "smollm2-135m-instruct")
        )
    text.write_text("\n\n".join(page.read_text("utf-8") for page in pages)[: 4000 if sizes is TINY else None], "utf-8")
    student = work / "student"
    tokswap.transplant_tokenizer(source, target, out=student, init="subword", progress=False)
    steps = 3 if sizes is TINY else 24
    return {
        f"{size} tokens a step": speed((source, student), [text], device, batch_tokens=size, epochs=2, steps=steps)
        for size in sizes.steps
    }
