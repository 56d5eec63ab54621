"""Tokens per second of a step of healing and of a bare training step: of processor time on a CPU, as others use it too."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tokswap.evaluation.models import load_model
from tokswap.heal.batches import Batches, batch_order
from tokswap.heal.inputs import open_inputs
from tokswap.heal.options import HealOptions
from tokswap.heal.student import Student
from tokswap.heal.targets import TargetStore

WARM_UP = 4


def speed(
    sides: tuple[Path, Path], paths: Sequence[Path], device: str, *, batch_tokens: int, epochs: int = 1, steps: int = 24
) -> dict[str, float]:
    """Return tokens per second of a step of healing and of a bare one: cross-entropy with the loss of transformers.

    Each is timed twice, in turn, and the better figure counts.

    Args:
        sides: Folders of the source model and of the student.
        paths: Texts.
        device: Where torch computes.
        batch_tokens: Tokens of a step.
        epochs: How often the text is read, where it is too short for the steps.
        steps: How many there are; the first ones do not count.
    """
    source, student = sides
    options = HealOptions(teacher=source, batch_tokens=batch_tokens, epochs=epochs)
    inputs = open_inputs(student, paths, options)
    assert inputs.text is not None
    passages = inputs.text.training
    store = TargetStore.open(Path(tempfile.mkdtemp()), passages)
    store.ids[:], store.probabilities[:] = 7, 1 / store.ids.shape[1]
    order = batch_order([len(one.student.ids) for one in passages], options)[:steps]
    batches = Batches(passages, inputs.sides[1].lead, order, store=store)
    model = Student(load_model(student, dtype="bfloat16", device=device)[0], options).train()

    def healing(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        loss: torch.Tensor = model(**{name: one for name, one in batch.items() if name != "weight"})["loss"]
        return loss

    def bare(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        labels = batch["inputs"].masked_fill(batch["mask"] == 0, -100)
        loss: torch.Tensor = model.causal(input_ids=batch["inputs"], attention_mask=batch["mask"], labels=labels).loss
        return loss

    found: dict[str, float] = {}
    for name, step in (("bare", bare), ("healing", healing), ("bare", bare), ("healing", healing)):
        found[name] = max(found.get(name, 0.0), round(_tokens_per_second(model, step, batches, device), 1))
    return found


def _tokens_per_second(model: Any, step: Callable[[Any], Any], batches: Any, device: str) -> float:
    """Time some steps with their updates; the batches come from the disk, as in training."""
    optimiser = torch.optim.AdamW(model.learning().values(), lr=0.0, fused=True)
    clock = time.process_time if device == "cpu" else time.perf_counter
    tokens, begin = 0, clock()
    for n in range(len(batches)):
        if n == min(WARM_UP, len(batches) - 1):  # the first ones are slower
            wait(device)
            tokens, begin = 0, clock()
        loss = step({name: one.to(device) for name, one in batches[n].items()})
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        tokens += sum(len(batches.passages[one].student.ids) for one in batches.order[n])
    wait(device)
    return tokens / (clock() - begin)


def wait(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
