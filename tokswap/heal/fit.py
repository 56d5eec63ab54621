"""Fits the rows of a text's tokens, and one map of the tables, to the text."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from tokswap.heal.calibration import Calibrated, Calibration, Tables
from tokswap.heal.compact import CompactModel
from tokswap.heal.passages import Passage

_WARM_STEPS = 3


def text_loss(model: Any, tables: Tables, passages: Sequence[Passage], lead: Sequence[int], batch: int) -> float:
    """Return what passages cost a model with new tables, in bits per byte.

    lead: ids that come before every passage (bos, or none); without one a passage's first token is not predicted.
    """
    compact = CompactModel(model, tables, _active(passages, lead))
    try:
        return float(_bits(compact, passages, lead, batch).sum()) / max(sum(passage.bytes for passage in passages), 1)
    finally:
        compact.close()


def fit(
    model: Any,
    tables: Tables,
    passages: Sequence[Passage],
    lead: Sequence[int],
    settings: Calibration,
    *,
    seed: int = 0,
    progress: bool = False,
) -> Calibrated:
    """Fit tables to passages of text; the model's own weights stay as they are.

    Adam on the loss of the text, the step size falling to nothing over the run. Every `held_out`-th passage is not
    trained on; where these are predicted worse in the end, by more than two standard errors, there is no result. The
    same seed, text and machine give the same tables.
    """
    kept, seen = list(passages[:: settings.held_out]), [p for n, p in enumerate(passages) if n % settings.held_out]
    size = sum(len(passage.ids) for passage in seen)
    epochs = max(1, min(settings.epochs, round(settings.tokens / size)))
    some = max(1, round(len(seen) * min(1.0, settings.tokens / (epochs * size))))  # of a text that is too long
    torch.manual_seed(seed)
    order = np.random.default_rng(seed)
    compact = CompactModel(model, tables, _active(passages, lead))
    rows, maps = compact.parameters
    # A row that was seen a few times would only learn these places by heart.
    counts = np.bincount(
        np.concatenate([compact.place[passage.ids] for passage in seen]), minlength=len(compact.active)
    )
    often = torch.from_numpy(counts >= settings.often).float().unsqueeze(1).to(compact.rows.device)
    for row in rows:
        row.register_hook(lambda gradient: gradient * often)  # type: ignore[no-untyped-call]
    # An input row is looked up for one position, an output row answers at every one: it takes the smaller steps.
    factors = [1.0] if len(rows) == 1 else [2.0, 0.5]
    groups = [
        {"params": [row], "lr": settings.rate * factor * float(row.detach().square().mean().sqrt())}
        for row, factor in zip(rows, factors, strict=True)
    ]
    optimiser = torch.optim.Adam([*groups, {"params": maps, "lr": settings.map_rate}], betas=(0.9, 0.99))
    batches = [
        batch
        for _ in range(epochs)
        for batch in _batches([seen[n] for n in order.permutation(len(seen))[:some].tolist()], settings.batch)
    ]
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / _WARM_STEPS, max(1 - step / max(len(batches), 1), 0.02))
    )
    begin = time.perf_counter()
    before = _bits(compact, kept, lead, settings.batch)
    try:
        with tqdm(total=len(batches), desc="calibrate", unit="step", disable=None if progress else True) as bar:
            for batch in batches:
                loss = _token_losses(compact, batch, lead)[0].mean()
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
                bar.update()
        after = _bits(compact, kept, lead, settings.batch)
        worse = after - before
        doubt = 2 * worse.std(ddof=1) / math.sqrt(len(kept)) if len(kept) > 1 else 0.0
        harm = worse.mean() > doubt
        result = None if harm or not np.isfinite(after).all() else compact.result()
    finally:
        compact.close()
    size = sum(passage.bytes for passage in kept)
    return Calibrated(
        result,
        {
            "passages": len(passages),
            "bytes": sum(passage.bytes for passage in passages),
            "tokens": sum(len(passage.ids) for passage in passages),
            "tokens_trained": sum(len(passage.ids) for batch in batches for passage in batch),
            "rows_fitted": int(often.sum()),
            "held_out_bits_per_byte": [round(float(bits.sum()) / size, 4) for bits in (before, after)],
            "seconds": round(time.perf_counter() - begin, 1),
        },
    )


def _active(passages: Sequence[Passage], lead: Sequence[int]) -> np.ndarray:
    """The target ids that occur, ascending."""
    return np.unique(np.concatenate([np.array(lead, np.int64), *(passage.ids for passage in passages)]))


def _batches(passages: Sequence[Passage], tokens: int) -> list[list[Passage]]:
    """Cut a list into batches of about `tokens` tokens. The order stays: like next to like would make lopsided steps."""
    batches: list[list[Passage]] = []
    longest = 0
    for passage in passages:
        longest = max(longest, len(passage.ids))
        if not batches or (len(batches[-1]) + 1) * longest > tokens:
            batches.append([])
            longest = len(passage.ids)
        batches[-1].append(passage)
    return batches


def _token_losses(
    compact: CompactModel, batch: Sequence[Passage], lead: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the losses of a batch's predicted tokens in nats, [n], and the passage of each, int64[n]."""
    longest = max(len(passage.ids) for passage in batch) + len(lead)
    ids, mask = np.zeros((2, len(batch), longest), np.int64)
    for n, passage in enumerate(batch):
        row = compact.place[np.concatenate([np.array(lead, np.int64), passage.ids])]
        ids[n, : len(row)], mask[n, : len(row)] = row, 1
    device = compact.rows.device
    places, attended = torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=compact.dtype != torch.float32):
        logits = compact.logits(places, attended)[:, :-1]
    predicted = attended[:, 1:].bool()
    predicted[:, : max(len(lead) - 1, 0)] = False
    losses = cross_entropy(logits[predicted], places[:, 1:][predicted], reduction="none")
    return losses, predicted.nonzero()[:, 0]


def _bits(compact: CompactModel, passages: Sequence[Passage], lead: Sequence[int], tokens: int) -> np.ndarray:
    """Return what each passage costs, float64[n], in bits."""
    bits: list[float] = []
    with torch.no_grad():
        for batch in _batches(passages, tokens):
            losses, owner = _token_losses(compact, batch, lead)
            total = torch.zeros(len(batch), dtype=torch.float64, device=losses.device)
            bits += total.index_add(0, owner, losses.double()).tolist()
    return np.array(bits) / math.log(2)
