"""The training: transformers' Trainer with the loss of healing, a judge of its own, and checkpoints of what learns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import SequentialSampler
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from tokswap.heal.batches import Batches
from tokswap.heal.memory import Heap
from tokswap.heal.options import HealOptions
from tokswap.heal.student import Student
from tokswap.heal.team import Team
from tokswap.storage.atomic import CACHE, library_writes, write_error
from tokswap.storage.json_files import json_bytes, read_json

WARM_UP, LAST_RATE, BETAS, CLIP = 0.05, 0.05, (0.9, 0.95), 1.0
_EVALUATIONS = 4
_PATIENCE = 2
_WEIGHTS = "learning.safetensors"
_COURSE = "course.json"

Judge = Callable[[], float]
"""Measures the student on the held-out text, in bits per byte."""


class DivergedError(Exception):
    """The loss of a step is not finite. Its argument is the step."""


@dataclass(frozen=True)
class Places:
    """Where a training runs.

    Attributes:
        folder: Folder of its checkpoints.
        team: The processes that share it.
    """

    folder: Path
    team: Team = field(default_factory=Team)


@dataclass
class Course:
    """How a training went.

    Attributes:
        loss: (step, loss, KL divergence, cross-entropy), in nats.
        held_out: (step, tokens, bits per byte of the held-out text).
        stopped: Why it ended before its time, "" where it did not.
    """

    loss: list[tuple[int, float, float, float]] = field(default_factory=list)
    held_out: list[tuple[int, int, float]] = field(default_factory=list)
    stopped: str = ""


class HealTrainer(Trainer):  # type: ignore[misc]
    """A Trainer that trains a `Student` and asks a judge how good it is."""

    def __init__(
        self, student: Student, batches: Batches, options: HealOptions, *, judge: Judge, places: Places
    ) -> None:
        """Set up the training."""
        self.course, self._judge, self._options, self._heap = Course(), judge, options, Heap()
        self.optimizer: Any = None
        self.control: Any = None
        self._tokens = np.cumsum([sum(len(batches.passages[n].student.ids) for n in one) for one in batches.order])
        steps = len(batches.order)
        every = max(1, math.ceil(steps / max(_EVALUATIONS, 2 * options.epochs)))
        cpu = options.device == "cpu"
        args = TrainingArguments(
            output_dir=str(places.folder),
            max_steps=steps,
            per_device_train_batch_size=1,
            max_grad_norm=CLIP,
            warmup_steps=max(1, round(WARM_UP * steps)),
            lr_scheduler_type="cosine_with_min_lr",
            lr_scheduler_kwargs={"min_lr_rate": LAST_RATE},
            eval_strategy="steps",
            save_strategy="steps",
            eval_steps=every,
            save_steps=every,
            save_total_limit=2,
            load_best_model_at_end=True,
            metric_for_best_model="eval_bits_per_byte",
            greater_is_better=False,
            logging_steps=max(1, steps // 100),
            report_to=options.track or "none",
            remove_unused_columns=False,
            use_cpu=cpu,
            ddp_backend="gloo" if cpu and places.team.size > 1 else None,
            ddp_find_unused_parameters=False,
            seed=options.seed,
            disable_tqdm=True,
            dataloader_pin_memory=not cpu,
        )
        super().__init__(
            model=student,
            args=args,
            train_dataset=batches,
            eval_dataset=batches,
            data_collator=lambda found: found[0],
            callbacks=[
                EarlyStoppingCallback(_PATIENCE),
                _Trim(self._heap),
                *([_Bar(self)] if options.progress and places.team.leads else []),
            ],
        )
        self.remove_callback(PrinterCallback)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(self.train_dataset)

    def create_optimizer(self, model: Any = None) -> Any:
        """Make the optimiser: embeddings learn at a rate that fits their typical element."""
        if self.optimizer is None:
            student: Student = self.model
            options, matrices = self._options, student.matrices()
            own = {id(one) for one in matrices}
            rate = options.rate_at(matrices[0].shape[1])
            groups: list[dict[str, Any]] = [
                {"params": [one], "lr": options.embedding_rate * float(one.detach().square().mean().sqrt())}
                for one in matrices
            ]
            groups.append({"params": [one for one in student.learning().values() if id(one) not in own], "lr": rate})
            groups = [group for group in groups if group["params"]]
            fused = matrices[0].device.type in ("cpu", "cuda")
            self.optimizer = torch.optim.AdamW(groups, betas=BETAS, weight_decay=0.0, fused=fused)
        return self.optimizer

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of a batch. Raises DivergedError where it is not finite."""
        weight = inputs.pop("weight")
        found = model(**inputs)
        values = torch.stack([found[name].detach().float() * weight for name in ("loss", "kl", "cross_entropy")])
        values = self.accelerator.reduce(values, "mean").tolist()
        step = self.state.global_step + 1
        if not math.isfinite(values[0]):
            raise DivergedError(step)
        self.course.loss.append((step, *(round(value, 5) for value in values)))
        loss = found["loss"] * weight
        return (loss, found) if return_outputs else loss

    def evaluate(self, *given: Any, **named: Any) -> dict[str, float]:
        """Judge the student on the held-out text."""
        self.model.eval()
        found = self._judge()
        self.model.train()
        self._heap.trim()
        step = self.state.global_step
        self.course.held_out.append((step, int(self._tokens[step - 1]) if step else 0, round(found, 5)))
        metrics = {"eval_bits_per_byte": found}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, *given: Any) -> None:
        try:
            with library_writes():
                super()._save_checkpoint(*given)
        except OSError as error:
            raise write_error(error, Path(self.args.output_dir), CACHE) from error

    def _save(self, output_dir: str | None = None, state_dict: Mapping[str, Any] | None = None) -> None:
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        values = {name: one.detach().cpu().contiguous() for name, one in self.model.learning().items()}
        (folder / _COURSE).write_bytes(json_bytes({"loss": self.course.loss, "held_out": self.course.held_out}))
        save_file(values, folder / _WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        for name, points in read_json(folder / _COURSE, "checkpoint").items():
            getattr(self.course, name)[:] = [tuple(point) for point in points]
        load_learning(self.model, folder / _WEIGHTS)

    def _load_best_model(self) -> None:
        load_learning(self.model, Path(self.state.best_model_checkpoint) / _WEIGHTS)


class _Trim(TrainerCallback):  # type: ignore[misc]
    """Keeps the heap from growing."""

    def __init__(self, heap: Heap) -> None:
        self._heap = heap

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._heap.trim()


class _Bar(TrainerCallback):  # type: ignore[misc]
    """A progress bar with the loss, the held-out figure and the tokens per second."""

    def __init__(self, trainer: HealTrainer) -> None:
        self._trainer = trainer
        self._bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        from tqdm.auto import tqdm

        total = int(self._trainer._tokens[-1])
        self._bar = tqdm(total=total, desc="heal", unit="tok", unit_scale=True, disable=None)

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        course = self._trainer.course
        shown = {"loss": f"{course.loss[-1][1]:.3f}"} if course.loss else {}
        if course.held_out:
            shown["held out"] = f"{course.held_out[-1][2]:.3f} bits/byte"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(int(self._trainer._tokens[state.global_step - 1]) - self._bar.n)

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._bar.close()


def load_learning(student: Student, path: Path) -> None:
    """Load the weights that learn from a checkpoint of the training."""
    values = load_file(path)
    with torch.no_grad():
        for name, one in student.learning().items():
            one.copy_(values[name])
