"""The batches of a training: which passages each step reads, and its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from tokswap.heal.options import HealOptions
from tokswap.heal.targets import TargetStore
from tokswap.heal.text import Passage, padded


@dataclass(frozen=True)
class Batches(Dataset[dict[str, torch.Tensor]]):
    """The batches of all epochs, in their order.

    Attributes:
        passages: The passages.
        lead: Ids that come before each.
        order: The passages of each batch.
        store: Targets from the teacher; None for the real tokens.
        processes: How many processes share a batch; item n is the share of process n % processes.
    """

    passages: Sequence[Passage]
    lead: tuple[int, ...]
    order: Sequence[Sequence[int]]
    store: TargetStore | None = None
    processes: int = 1

    def __len__(self) -> int:
        return len(self.order) * self.processes

    def __getitem__(self, n: int) -> dict[str, torch.Tensor]:
        step, rank = divmod(n, self.processes)
        whole = self.order[step]
        part = whole[rank :: self.processes]
        # The mean over processes is then that over the tokens of the step. One without a passage reads another's.
        weight = self.processes * self._predicted(part) / self._predicted(whole)
        return {**self._batch(part or whole[:1]), "weight": torch.tensor(weight, dtype=torch.float32)}

    def _predicted(self, part: Sequence[int]) -> int:
        return sum(len(self.passages[n].student.ids) - int(not self.lead) for n in part)

    def _batch(self, part: Sequence[int]) -> dict[str, torch.Tensor]:
        skip = int(not self.lead)
        inputs, mask, rows = padded([self.passages[one].student.ids for one in part], self.lead, "cpu")
        tokens = np.concatenate([self.passages[one].student.ids[skip:] for one in part]).astype(np.int64)
        if self.store is None:
            ids, probabilities = tokens[:, None], np.ones((len(tokens), 1), np.float32)
        else:
            found = [self.store.of(one) for one in part]
            ids, probabilities = (np.concatenate([pair[which][skip:] for pair in found]) for which in (0, 1))
        wanted = {"tokens": tokens, "ids": ids, "probabilities": probabilities}
        return {
            "inputs": inputs,
            "mask": mask,
            "rows": rows,
            **{name: torch.from_numpy(value) for name, value in wanted.items()},
        }


def batch_order(sizes: Sequence[int], options: HealOptions) -> list[list[int]]:
    """Return the passages of each step, for all epochs: another order each time, about `batch_tokens` tokens a step.

    Args:
        sizes: Student tokens of each passage.
        options: epochs, batch_tokens and seed count.
    """
    random = np.random.default_rng(options.seed)
    batches: list[list[int]] = []
    for _ in range(options.epochs):
        total, open_batch = 0, False
        for n in random.permutation(len(sizes)).tolist():
            # A passage joins the batch where that brings it nearer to the wanted size.
            if open_batch and abs(total + sizes[n] - options.batch_tokens) <= abs(total - options.batch_tokens):
                batches[-1].append(n)
                total += sizes[n]
            else:
                batches.append([n])
                total, open_batch = sizes[n], True
    return batches


def largest_batch(sizes: Sequence[int], options: HealOptions) -> int:
    """Return the tokens of the largest step, padding included. Arguments are those of `batch_order`."""
    return max(len(batch) * max(sizes[n] for n in batch) for batch in batch_order(sizes, options))
