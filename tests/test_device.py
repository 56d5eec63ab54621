"""What computes on a device, against the CPU in float32 or plain libraries. TOKSWAP_TEST_DEVICE names the device."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypernets import random_weights, reference
from test_methods import in_context, problem

from tokswap.evaluation.losses import bits_per_byte
from tokswap.evaluation.models import load_model
from tokswap.heal.heads import HeadForm
from tokswap.heal.loss import FusedLoss, Wanted, Weights
from tokswap.heal.options import HealOptions
from tokswap.heal.student import Student
from tokswap.hypernet import Hypernet, HypernetConfig
from tokswap.hypernet.convert import build
from tokswap.init.methods._nearest import Array, nearest
from tokswap.init.pursuit import rounds, solve, textbook
from tokswap.init.pursuit.solve import orthogonal_matching_pursuit
from tokswap.init.registry import make_initializer

DEVICE = os.environ.get("TOKSWAP_TEST_DEVICE", "cpu")
ROOT = Path(__file__).parent.parent
device = pytest.mark.device


def embeddings(rows: int, width: int, seed: int = 0) -> np.ndarray:
    """Rows with a decaying spectrum and a common direction."""
    random = np.random.default_rng(seed)
    return (random.standard_normal((rows, width)) * (1 + np.arange(width)) ** -0.4 + 0.5).astype(np.float32)


@device
@pytest.mark.parametrize("exact", [True, False])
def test_matching_pursuit(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = embeddings(4540, 48)
    dictionary, targets = rows[:4500] / np.linalg.norm(rows[:4500], axis=1, keepdims=True), rows[4500:]
    right = orthogonal_matching_pursuit(dictionary, targets, 8, exact=True, tolerance=0.0)
    if DEVICE == "cpu":  # the torch path, which other devices take
        monkeypatch.setattr(solve, "CpuRounds", lambda dictionary: rounds.TorchRounds(dictionary, "cpu"))
        monkeypatch.setattr(solve, "CpuTextbook", lambda dictionary: textbook.TorchTextbook(dictionary, "cpu"))
    code = orthogonal_matching_pursuit(dictionary, targets, 8, exact=exact, tolerance=0.0, device=DEVICE)
    rebuilt = np.einsum("mk,mkd->md", code.weights, dictionary[code.atoms])
    left = np.linalg.norm(targets - rebuilt, axis=1) / np.linalg.norm(targets, axis=1)
    np.testing.assert_allclose(code.residual, left, atol=1e-4)
    if exact:
        same = [set(a.tolist()) == set(b.tolist()) for a, b in zip(code.atoms, right.atoms, strict=True)]
        assert np.mean(same) >= 0.95
        np.testing.assert_allclose(code.residual, right.residual, atol=5e-3)
    assert code.residual.mean() <= 1.01 * right.residual.mean()


@device
def test_nearest_neighbours() -> None:
    queries, keys = embeddings(50, 24, 1), embeddings(700, 24, 2)
    places, cosines = nearest(
        Array(queries), np.arange(50), Array(keys), np.arange(700), 5, memory=1 << 16, device=DEVICE
    )
    unit = [rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True) for rows in (queries, keys)]
    exact = unit[0] @ unit[1].T
    np.testing.assert_array_equal(places, np.argsort(-exact, axis=1)[:, :5])
    np.testing.assert_allclose(cosines, np.take_along_axis(exact, places, 1), atol=1e-5)


@device
@pytest.mark.parametrize("name", ["omp", "kriging", "tokenadapt", "focus", "auto"])
def test_rows_of_methods(name: str) -> None:
    method, task = make_initializer(name, {"k": 8} if name == "omp" else {}), problem()
    made = method(in_context(task, device=DEVICE)).rows
    np.testing.assert_allclose(made, method(in_context(task)).rows, atol=1e-3 * float(np.abs(made).max()))


@device
def test_prediction_of_a_hypernetwork() -> None:
    config = HypernetConfig(
        n_embd=10,
        original_vocab_size=40,
        hn_hidden_size=12,
        hn_intermediate_size=20,
        hn_n_layers=2,
        hn_num_attention_heads=3,
        pad_token_id=2,
        hn_predict_bias=True,
    )
    weights = random_weights(config)
    forms = np.random.default_rng(0).integers(3, 40, (20, 7))
    forms[np.arange(7) >= np.arange(1, 21)[:, None] % 7 + 1] = 2
    source = embeddings(40, 10)
    network = build(config, weights, Path()).to(DEVICE)
    found = Hypernet(config, network, surface=None, device=DEVICE)(forms, source)  # type: ignore[arg-type]
    right = reference(config, weights, forms, source, None)
    np.testing.assert_allclose(found.input, right[0], atol=1e-3)
    np.testing.assert_allclose(found.bias, right[2], atol=1e-3)


@device
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2)])
def test_loss_and_gradients_of_projected_targets(dtype: torch.dtype, most: float) -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(60, 16).to(dtype), 0.3 * torch.randn(200, 16).to(dtype)
    probabilities = torch.rand(60, 6).softmax(1) * 0.9
    wanted = Wanted(torch.randint(0, 200, (60,)), torch.rand(60, 200).topk(6).indices, probabilities)
    # In float64, from the definition: KL divergence over the targets and all other tokens as one.
    inputs = [one.double().requires_grad_() for one in (hidden, head)]
    scores = (inputs[0] @ inputs[1].T).log_softmax(1)
    known, goal = scores.exp().gather(1, wanted.ids), wanted.probabilities.double()
    both = [torch.cat([part, 1 - part.sum(1, keepdim=True)], 1) for part in (goal, known)]
    divergence = (both[0] * (both[0] / both[1]).log()).sum(1).mean()
    loss = 0.7 * divergence - 0.2 * scores.gather(1, wanted.tokens[:, None]).mean()
    loss.backward()
    there = [one.to(DEVICE).requires_grad_() for one in (hidden, head)]
    moved = Wanted(*(getattr(wanted, field.name).to(DEVICE) for field in dataclasses.fields(Wanted)))
    found = FusedLoss.apply(*there, moved, Weights(0.7, 0.2), HeadForm())[0]
    found.backward()
    assert found.item() == pytest.approx(loss.item(), rel=most)
    for one, right in zip(there, inputs, strict=True):
        assert one.grad is not None
        assert right.grad is not None
        away = (one.grad.cpu().double() - right.grad).norm() / right.grad.norm()
        assert away < most


@device
def test_step_of_healing(model_of: Callable[..., Path]) -> None:
    """With the real tokens alone, the loss and its gradient are those of plain training."""
    model = load_model(model_of("llama"), dtype="float32")[0]
    ids = torch.randint(10, 200, (3, 12))
    logits = model(ids).logits[:, :-1].flatten(0, 1)
    right = torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten())
    right.backward()
    gradient = model.get_input_embeddings().weight.grad
    options = HealOptions(train="full", kl=0.0, cross_entropy=1.0)
    student = Student(load_model(model_of("llama"), dtype="float32", device=DEVICE)[0], options)
    rows = torch.cat([torch.arange(11) + 12 * n for n in range(3)])
    tokens = ids[:, 1:].flatten()
    batch = {
        "inputs": ids,
        "mask": torch.ones_like(ids),
        "rows": rows,
        "tokens": tokens,
        "ids": tokens[:, None],
        "probabilities": torch.ones(33, 1),
    }
    found = student(**{name: one.to(DEVICE) for name, one in batch.items()})["loss"]
    found.backward()
    assert found.item() == pytest.approx(right.item(), rel=1e-4)
    own = student.matrices()[0].grad
    assert own is not None
    assert gradient is not None
    assert float((own.cpu() - gradient).norm() / gradient.norm()) < 1e-3


@device
@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-4), ("bfloat16", 1e-2)])
def test_bits_per_byte(dtype: str, most: float, model_of: Callable[..., Path]) -> None:
    text = "The quick brown fox jumps over the lazy dog, and back again."
    plain, tokenizer = load_model(model_of("llama"), dtype="float32")
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.inference_mode():
        nats = float(plain(ids, labels=ids).loss) * (ids.shape[1] - 1)
    first = len(tokenizer.decode(ids[0, :1]).encode())
    model, tokenizer = load_model(model_of("llama"), dtype=dtype, device=DEVICE)
    found = bits_per_byte(model, tokenizer, text)
    assert found.bytes == len(text) - first
    assert found.bits == pytest.approx(nats / math.log(2), rel=most)


@pytest.mark.parametrize(
    "parts", [("pursuit", "methods", "hypernet"), pytest.param(("healing",), marks=pytest.mark.slow)]
)
def test_the_gpu_benchmark_on_small_inputs(
    parts: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    run: Callable[[list[str]], int] = runpy.run_path(str(ROOT / "benchmarks" / "gpu.py"))["main"]
    out = tmp_path / "gpu.json"
    code = run(["--tiny", "--device", "cpu", "--out", str(out), "--parts", *parts])
    found: dict[str, Any] = json.loads(out.read_text("utf-8"))
    assert code == 0, found
    assert set(found["parts"]) == set(parts)
    assert "healing" not in parts or found["parts"]["healing"]["64 tokens a step"]["healing"] > 0
    import _gpu_parts

    monkeypatch.setattr(_gpu_parts, "hypernet", lambda sizes, device: {"difference": _gpu_parts.bound(1.0, 0.1)})
    assert run(["--tiny", "--device", "cpu", "--out", str(out), "--parts", "hypernet"]) == 1
    for name in [name for name in sys.modules if name in ("_gpu_parts", "_heal_speed", "_machine")]:
        del sys.modules[name]
