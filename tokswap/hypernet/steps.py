"""The two kinds of training step: reproducing the source embeddings, and language modelling with predicted ones."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tokswap.hypernet.base import Base
from tokswap.hypernet.batches import Batches
from tokswap.hypernet.model import Network
from tokswap.hypernet.settings import TrainSettings

Stage = Literal["identity", "main"]


class Laps:
    """Measures which part of a step takes how long."""

    def __init__(self) -> None:
        self._seconds = {"sampling": 0.0, "hypernet": 0.0, "model": 0.0}
        self._taken = self._begun = time.perf_counter()

    def begin(self) -> None:
        """Begin the first part of a step."""
        self._begun = time.perf_counter()

    def end(self, part: str) -> None:
        """End one part and begin the next."""
        now = time.perf_counter()
        self._seconds[part] += now - self._begun
        self._begun = now

    def take(self) -> dict[str, float]:
        """Return the seconds since the last call, in all and by part."""
        now = time.perf_counter()
        parts = {f"{part}_seconds": round(value, 4) for part, value in self._seconds.items()}
        taken = {"seconds": round(now - self._taken, 4), **parts}
        self._taken, self._seconds = now, dict.fromkeys(self._seconds, 0.0)
        return taken


@dataclass(frozen=True)
class StepResult:
    """What a step has computed, before the optimizer changes the network.

    Attributes:
        stage: The kind of step.
        loss: Mean loss over all processes.
        norm: Norm of the gradient before it is clipped.
        figures: More figures for metrics.jsonl.
    """

    stage: Stage
    loss: float
    norm: float
    figures: Mapping[str, float]

    @property
    def finite(self) -> bool:
        """Whether loss and gradient are finite."""
        return math.isfinite(self.loss) and math.isfinite(self.norm)


@dataclass(frozen=True)
class Trainer:
    """Everything that a step needs. Each process predicts all embeddings and runs the base model on its share of texts.

    Attributes:
        settings: The settings of the run.
        base: The model that the hypernetwork is for.
        batches: What draws the batches.
        network: The hypernetwork.
        parallel: The hypernetwork as accelerate runs it, on several processes too.
        accelerator: The `Accelerator`.
        optimizer: The optimizer, as accelerate runs it.
        laps: What measures time.
    """

    settings: TrainSettings
    base: Base
    batches: Batches
    network: Network
    parallel: Any
    accelerator: Any
    optimizer: Any
    laps: Laps = field(default_factory=Laps)

    def compute(self, step: int) -> StepResult:
        """Compute the loss and the gradient of a step.

        Args:
            step: The step, counted from 0 over both stages.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate_at(step)
        self.optimizer.zero_grad(set_to_none=True)
        stage: Stage = "identity" if step < self.settings.identity_steps else "main"
        if stage == "identity":
            loss, figures = self._identity_step(step)
        else:
            loss, figures = self._main_step(step - self.settings.identity_steps)
        norm = self.accelerator.clip_grad_norm_(self.network.parameters(), self.settings.clip or math.inf)
        loss = self.accelerator.reduce(loss.detach(), "mean")
        return StepResult(stage=stage, loss=float(loss), norm=float(norm), figures=figures)

    def autocast(self) -> torch.autocast:
        """Return a context in which torch computes in bfloat16 where that is safe, if the settings say so."""
        return torch.autocast(self.base.source.device.type, torch.bfloat16, enabled=self.settings.bf16)

    def _identity_step(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Return the squared error of the source embeddings in units of their mean square, and no figures."""
        self.laps.begin()
        batch = self.batches.identity(step)
        forms, wanted = self._tensor(batch.forms), self.base.source[self._tensor(batch.ids)]
        self.laps.end("sampling")
        first, second, _ = self._predict(forms)
        rows = first if second is None else torch.cat([first, second], dim=1)
        loss: Tensor = (rows - wanted).square().sum(dim=1).mean() / self._mean_square
        self.accelerator.backward(loss)
        self.laps.end("hypernet")
        return loss, {}

    def _main_step(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Return the loss on text under a sampled tokenizer plus the weighted lexical loss, and figures."""
        self.laps.begin()
        batch = self.batches.main(step)
        forms = self._tensor(self.batches.surface.pack(batch.pieces))
        ids, labels = self._tensor(batch.ids), self._tensor(batch.labels)
        self.laps.end("sampling")
        predicted = self._predict(forms)
        self.laps.end("hypernet")
        # The backward pass of the model stops at the embeddings, so that its graph is gone before the network's begins.
        leaves = [None if part is None else part.detach().requires_grad_() for part in predicted]
        summed = self._token_loss(ids, labels, leaves)
        count = max(batch.predicted, 1)
        # Gradients are averaged over processes. With this factor their mean is the gradient of the whole batch.
        (summed * self.accelerator.num_processes / count).backward()
        self.laps.end("model")
        lexical = self._lexical_loss(predicted, batch.pieces)
        outputs = [part for part in predicted if part is not None]
        gradients = [leaf.grad for leaf in leaves if leaf is not None]
        torch.autograd.backward([*outputs, self.settings.lexical * lexical], [*gradients, None])
        self.laps.end("hypernet")
        token_loss = self.accelerator.reduce(summed.detach(), "sum") / count
        return token_loss + self.settings.lexical * lexical.detach(), {
            "token_loss": float(token_loss),
            "lexical": float(lexical.detach()),
            "candidates": len(batch.pieces),
            "bits_per_byte": float(token_loss) * batch.predicted / max(batch.predicted_bytes, 1) / math.log(2.0),
        }

    def _token_loss(self, ids: Tensor, labels: Tensor, embeddings: Sequence[Any]) -> Tensor:
        """Return the summed loss of this process's texts under some embeddings; see `MainBatch`."""
        with self.autocast():
            logits = self.base.logits(ids, *self._with_special(embeddings))
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), ignore_index=-1, reduction="sum"
        )

    def _lexical_loss(self, predicted: Sequence[Any], pieces: Sequence[Sequence[int]]) -> Any:
        """Return the mean distance of the candidates that are source tokens to their embeddings, in mean norms."""
        known = self.batches.surface.config.original_vocab_size
        own = [(n, ids[0]) for n, ids in enumerate(pieces) if len(ids) == 1 and ids[0] < known]
        if not own:
            return predicted[0].sum() * 0.0
        places, ids = (self._tensor(np.array(column)) for column in zip(*own, strict=True))
        wanted = self._by_matrix(self.base.source[ids])
        parts = zip((part for part in predicted[:2] if part is not None), wanted, self._mean_norms, strict=True)
        return sum((part[places] - rows).norm(dim=1).mean() / norm for part, rows, norm in parts) / len(wanted)

    def _predict(self, forms: Tensor) -> list[Any]:
        """Return predicted input embeddings, rows of lm_head and biases, float32; None for what is not predicted."""
        with self.autocast():
            predicted = self.parallel(forms, self.base.source)
        return [None if part is None else part.float() for part in predicted]

    def _with_special(self, embeddings: Sequence[Any]) -> list[Any]:
        """Append the base model's own special tokens to predicted embeddings, and convert them to the model's dtype."""
        dtype = next(self.base.model.parameters()).dtype
        if self.base.special:
            both = zip(embeddings, self._special_rows, strict=True)
            embeddings = [None if part is None else torch.cat([part, own]) for part, own in both]
        return [None if part is None else part.to(dtype) for part in embeddings]

    @cached_property
    def _special_rows(self) -> tuple[Any, Any, Any]:
        """Input embeddings, rows of lm_head and biases of its special tokens; None for what it does not have."""
        ids, names = self.base.special, self.base.names
        first, *more = self._by_matrix(self.base.source[ids])
        bias = None if names.bias is None else self.base.model.get_output_embeddings().bias[ids].float()
        return first, more[0] if more else None, bias

    @cached_property
    def _trained_rows(self) -> Tensor:
        return self.base.source[torch.from_numpy(self.base.trained_ids)]

    @cached_property
    def _mean_square(self) -> float:
        return float(self._trained_rows.square().sum(dim=1).mean())

    @cached_property
    def _mean_norms(self) -> list[float]:
        """Mean norm of the input embeddings, and of the rows of lm_head where it is a matrix of its own."""
        return [float(part.norm(dim=1).mean()) for part in self._by_matrix(self._trained_rows)]

    def _by_matrix(self, rows: Tensor) -> Sequence[Tensor]:
        """Return the input embeddings, and the rows of lm_head where it is a matrix of its own, of source rows."""
        return rows.chunk(rows.shape[1] // self.base.width, dim=1)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(values, np.int64)).to(self.base.source.device)
