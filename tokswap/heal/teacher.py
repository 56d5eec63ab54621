"""What the teacher predicts: its likeliest tokens at each token of a text, and its loss."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tokswap.heal.heads import find_form, hidden_states
from tokswap.heal.logits import Logits, Picked
from tokswap.heal.memory import Heap
from tokswap.heal.text import padded

_BATCH_TOKENS = 1024
_ROWS = 128
"""Positions whose logits are computed at once: fewer read the lm_head more often, more make its blocks too small."""


@dataclass(frozen=True)
class Read:
    """What a model predicts of one passage.

    Attributes:
        index: Which passage.
        ids: Its likeliest tokens, and the real one last where it is none of them, int32 [m, K + 1]; -1 for no token.
        probabilities: Their probabilities, float32 [m, K + 1].
        bits: Loss of each token, float64 [m]; 0 where it predicts nothing.
    """

    index: int
    ids: np.ndarray
    probabilities: np.ndarray
    bits: np.ndarray


def read_passages(
    model: Any,
    passages: Sequence[np.ndarray],
    lead: Sequence[int],
    *,
    top: int = 0,
    batch: int = _BATCH_TOKENS,
    missing: Collection[int] | None = None,
) -> Iterator[Read]:
    """Let a model predict passages. They come in batches of about the same length, not in their order.

    The last bits of what is read depend on the batch, and batches do not depend on what is missing. So a reading that
    was broken off gives the same when it goes on.

    Args:
        model: A causal language model in evaluation mode.
        passages: Ids of each passage, int32 [m].
        lead: Ids that come before every passage (bos, or none). Without one, the first token is not predicted.
        top: How many of the likeliest tokens to return, 0 for none.
        batch: Tokens to read at a time, padding included.
        missing: Passages to read, all by default; the others of their batches come too.
    """
    form, head = find_form(model), model.get_output_embeddings()
    low: Any = None if form is None else head.weight
    heap = Heap()
    order = sorted(range(len(passages)), key=lambda n: len(passages[n]))
    while order:
        size = max(1, batch // (len(passages[order[-1]]) + len(lead)))
        part, order = order[-size:], order[:-size]
        if missing is not None and not any(n in missing for n in part):
            continue
        inputs, mask, rows = padded([passages[n] for n in part], lead, model.device)
        wanted = torch.from_numpy(np.concatenate([passages[n][not lead :] for n in part])).to(model.device).long()
        with torch.no_grad():  # weights that are gathered in inference mode could not be trained with later
            if form is None:
                logits = model(input_ids=inputs, attention_mask=mask, use_cache=False).logits.flatten(0, 1)[rows]
                found = _told(_picked(logits.float(), wanted, top), wanted)
            else:
                hidden = hidden_states(model, inputs, mask).flatten(0, 1)[rows]
                low = low.to(hidden.dtype)
                chunks = [
                    _told(Logits(some, low, form).picked(real[:, None], top), real)
                    for some, real in zip(torch.split(hidden, _ROWS), torch.split(wanted, _ROWS), strict=True)
                ]
                found = [np.concatenate([chunk[n] for chunk in chunks]) for n in range(3)]
        heap.trim()
        yield from _parts(found, part, [len(passages[n]) for n in part], skipped=int(not lead))


def _picked(logits: torch.Tensor, wanted: torch.Tensor, top: int) -> Picked:
    """Return the wanted and the greatest of logits [n, V] that the model itself has computed."""
    best, ids = logits.topk(min(top, logits.shape[1]), dim=1)
    return Picked(logits.gather(1, wanted[:, None]), logits.logsumexp(1, keepdim=True), best=best, best_ids=ids)


def _told(picked: Picked, wanted: torch.Tensor) -> list[np.ndarray]:
    """Return the likeliest tokens and the wanted one, their probabilities, and the loss of the wanted one in bits."""
    bits = (picked.total - picked.logits)[:, 0].double() / np.log(2)
    if not picked.best.shape[1]:
        empty = np.zeros((len(bits), 0))
        return [empty.astype(np.int32), empty.astype(np.float32), bits.cpu().numpy()]
    # The real token too, which decides how the text goes on inside of it.
    found = (picked.best_ids == wanted[:, None]).any(1, keepdim=True)
    ids = torch.cat([picked.best_ids, wanted[:, None].masked_fill(found, -1)], 1)
    values = torch.cat([picked.best, picked.logits.masked_fill(found, -torch.inf)], 1)
    return [ids.int().cpu().numpy(), (values - picked.total).exp().cpu().numpy(), bits.cpu().numpy()]


def _parts(found: Sequence[np.ndarray], part: Sequence[int], sizes: Sequence[int], skipped: int) -> Iterator[Read]:
    """Split what was found for a batch into passages."""
    at = 0
    for index, size in zip(part, sizes, strict=True):
        ids, probabilities, bits = (one[at : at + size - skipped] for one in found)
        if skipped:
            ids = np.concatenate([np.full_like(ids[:1], -1), ids])
            probabilities = np.concatenate([np.zeros_like(probabilities[:1]), probabilities])
            bits = np.concatenate([np.zeros(1), bits])
        yield Read(index, ids, probabilities=probabilities, bits=bits)
        at += size - skipped
