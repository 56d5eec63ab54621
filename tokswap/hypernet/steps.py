"""The two kinds of training step: giving the source's rows back, and language modelling with predicted rows.

Whatever is random follows from the seed and the step. Every process knows the global batch: each predicts all rows of a
main step and runs the model on its share of the texts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokswap.hypernet.base import Base
from tokswap.hypernet.sampling import Sampler, Texts
from tokswap.hypernet.settings import TrainSettings
from tokswap.hypernet.surface import Surface
from tokswap.tokenizer.vocabulary import BYTE_ALPHABET, Kind


@dataclass
class Trainer:
    """Everything that a step needs. seconds: time spent by part since the last line of metrics."""

    settings: TrainSettings
    base: Base
    surface: Surface
    texts: Texts
    network: Any
    accelerator: Any
    optimizer: Any
    sampler: Sampler

    def __post_init__(self) -> None:
        self.seconds = {"sampling": 0.0, "hypernet": 0.0, "model": 0.0}
        self._cuts: dict[str, list[int]] = {}
        self._trained = trained_ids(self.base)
        rows = self.base.source[torch.from_numpy(self._trained)]
        self._square = float(rows.square().sum(dim=1).mean())
        self._norms = [float(part.norm(dim=1).mean()) for part in rows.chunk(rows.shape[1] // self.base.width, dim=1)]

    def identity_step(self, step: int) -> tuple[Any, dict[str, float]]:
        """Squared error of the source's own rows, in units of their mean square. Each process takes its share."""
        settings = self.settings
        begin = time.perf_counter()
        draw = np.random.default_rng([settings.seed, 1, step])
        ids = draw.choice(self._trained, settings.identity_batch)
        cuts, places = draw.random(len(ids)), draw.random(len(ids))
        mine = self._share(len(ids))
        vocabulary = self.base.tokenizer.vocabulary
        pieces = []
        for token, cut, place in zip(ids[mine].tolist(), cuts[mine].tolist(), places[mine].tolist(), strict=True):
            surface = vocabulary.token_bytes[token]
            if cut < settings.split and len(surface) > 1 and vocabulary.kind[token] == Kind.NORMAL:
                at = 1 + int(place * (len(surface) - 1))
                pieces.append(self.surface.cut(surface[:at]) + self.surface.cut(surface[at:]))
            else:
                pieces.append([token])
        forms = self._tensor(self.surface.pack(pieces))
        wanted = self.base.source[self._tensor(ids[mine])]
        begin = self._lap("sampling", begin)
        first, second, _ = self._predict(forms)
        rows = first if second is None else torch.cat([first, second], dim=1)
        loss = (rows - wanted).square().sum(dim=1).mean() / self._square
        self.accelerator.backward(loss)
        self._lap("hypernet", begin)
        return loss, {}

    def main_step(self, step: int) -> tuple[Any, dict[str, float]]:
        """Loss of the model on text under a sampled tokenizer, and the distance of known tokens to their rows."""
        settings = self.settings
        begin = time.perf_counter()
        self.sampler.push(self.texts.batch(step + settings.queue - 1, settings.batch))
        texts = self.texts.batch(step, settings.batch)
        tokenizer = self.sampler.sample(step)
        encoded = [ids[: settings.length] for ids in tokenizer.encode(texts)]
        used = np.unique(np.concatenate([np.array(ids, np.int64) for ids in encoded]))
        rest = np.setdiff1d(np.arange(len(tokenizer.tokens)), used)
        draw = np.random.default_rng([settings.seed, 2, step])
        more = draw.choice(rest, min(settings.negatives, len(rest)), replace=False)
        candidates = np.concatenate([used, more])
        place_of = np.full(len(tokenizer.tokens), -1)
        place_of[candidates] = np.arange(len(candidates))
        pieces = [self._cut(tokenizer.tokens[token]) for token in candidates.tolist()]
        forms = self._tensor(self.surface.pack(pieces))
        lead = [] if self.base.bos is None else [len(candidates)]  # bos keeps its row, after all others
        # The first token of a text is read and not predicted, unless bos stands before it.
        lines = [lead + place_of[ids].tolist() for ids in encoded]
        predicted = sum(max(len(line) - 1, 0) for line in lines)
        size = max(len(line) for line in lines)
        mine = self._share(len(lines))
        padded = np.full((len(lines), size), -1, np.int64)
        for row, line in zip(padded, lines, strict=True):
            row[: len(line)] = line
        batch = self._tensor(padded[mine])
        mask, batch = batch >= 0, batch.clamp(min=0)
        begin = self._lap("sampling", begin)
        rows = self._predict(forms)
        begin = self._lap("hypernet", begin)
        # The model's part of the backward pass ends at the rows, so that its graph is gone before the network's begins.
        leaves = [None if part is None else part.detach().requires_grad_() for part in rows]
        with self.accelerator.autocast():
            logits = self.base.logits(batch, *(self._with_bos(leaf, n) for n, leaf in enumerate(leaves)))
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].reshape(-1, logits.shape[-1]).float(), batch[:, 1:].reshape(-1), reduction="none"
        )
        summed = (losses * mask[:, 1:].reshape(-1)).sum()
        # Gradients are averaged over processes: with this scale their mean is that of the global batch.
        (summed * self.accelerator.num_processes / max(predicted, 1)).backward()
        begin = self._lap("model", begin)
        lexical = self._lexical(rows, pieces)
        outputs = [part for part in rows if part is not None]
        grads = [leaf.grad for leaf in leaves if leaf is not None]
        torch.autograd.backward([*outputs, settings.lexical * lexical], [*grads, None])
        self._lap("hypernet", begin)
        total = self.accelerator.reduce(summed.detach(), "sum") / max(predicted, 1)
        size = sum(len(tokenizer.tokens[token]) for ids in encoded for token in ids[(0 if lead else 1) :])
        loss = total + settings.lexical * lexical.detach()
        return loss, {
            "token_loss": float(total),
            "lexical": float(lexical.detach()),
            "candidates": len(candidates),
            "bits_per_byte": float(total) * predicted / max(size, 1) / float(np.log(2.0)),
        }

    def _lexical(self, rows: Sequence[Any], pieces: Sequence[Sequence[int]]) -> Any:
        """Mean distance, in mean norms, of the tokens that the source has to their source rows."""
        known = self.surface.config.original_vocab_size
        own = [(n, ids[0]) for n, ids in enumerate(pieces) if len(ids) == 1 and ids[0] < known]
        if not own:
            return rows[0].sum() * 0.0
        places, ids = (self._tensor(np.array(column)) for column in zip(*own, strict=True))
        wanted = self.base.source[ids].chunk(len(self._norms), dim=1)
        parts = zip((row for row in rows[:2] if row is not None), wanted, self._norms, strict=True)
        return sum((row[places] - target).norm(dim=1).mean() / norm for row, target, norm in parts) / len(wanted)

    def _predict(self, forms: Tensor) -> list[Any]:
        with self.accelerator.autocast():
            rows = self.network(forms, self.base.source)
        return [None if part is None else part.float() for part in rows]

    def _with_bos(self, leaf: Any, table: int) -> Any:
        """Append the source's bos row to a predicted table, in the model's type."""
        if leaf is None:
            return None
        if self.base.bos is not None:
            if table == 2:
                own = self.base.model.get_output_embeddings().bias[self.base.bos].float()[None]
            else:
                width = self.base.width
                own = self.base.source[self.base.bos, table * width : (table + 1) * width][None]
            leaf = torch.cat([leaf, own])
        return leaf.to(next(self.base.model.parameters()).dtype)

    def _cut(self, token: str) -> list[int]:
        """The pieces of a token in the byte alphabet; most come again."""
        if token not in self._cuts:
            if len(self._cuts) > 1 << 20:
                self._cuts.clear()
            self._cuts[token] = self.surface.cut(bytes(BYTE_ALPHABET[character] for character in token))
        return self._cuts[token]

    def _share(self, count: int) -> slice:
        """This process's part of a global batch."""
        each = count // self.accelerator.num_processes
        return slice(self.accelerator.process_index * each, (self.accelerator.process_index + 1) * each)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(values, np.int64)).to(self.base.source.device)

    def _lap(self, part: str, begin: float) -> float:
        now = time.perf_counter()
        self.seconds[part] += now - begin
        return now


def trained_ids(base: Base) -> np.ndarray:
    """Return the source ids that the model has learnt: all but reserved ones and padding, int64."""
    return np.flatnonzero(base.tokenizer.vocabulary.kind != Kind.UNUSED)
