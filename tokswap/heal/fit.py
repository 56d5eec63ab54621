"""Fits the rows of a text's tokens, and one map of the whole matrix, to the text."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from tokswap.heal.calibration import Calibrated, Calibration, Matrices
from tokswap.heal.compact import CompactModel
from tokswap.heal.passages import Passage

_WARM_STEPS = 3
_LAST_RATE = 0.02
_INPUT_RATE, _OUTPUT_RATE = 2.0, 0.5
"""Step sizes of separate matrices, relative to a tied one. An input row is read at one position of a text and an output
row is scored at all of them, so the output row takes the smaller steps."""


def text_loss(model: Any, matrices: Matrices, passages: Sequence[Passage], lead: Sequence[int], batch: int) -> float:
    """Measure how well a model with new matrices predicts a text.

    Args:
        model: The loaded model.
        matrices: Its new matrices.
        passages: The text.
        lead: Ids that come before every passage (bos, or none). Without one, the first token is not predicted.
        batch: Tokens to read at a time.

    Returns:
        Bits per byte.
    """
    compact = CompactModel(model, matrices, _active(passages, lead))
    try:
        return float(_bits(compact, passages, lead, batch).sum()) / max(sum(passage.bytes for passage in passages), 1)
    finally:
        compact.close()


def fit(
    model: Any,
    matrices: Matrices,
    passages: Sequence[Passage],
    lead: Sequence[int],
    settings: Calibration,
    *,
    seed: int = 0,
    progress: bool = False,
) -> Calibrated:
    """Fit matrices to a text. The other weights of the model stay as they are.

    The loss is that of predicting the text; the optimiser is Adam, with steps that shrink over the run. Every n-th
    passage is held out. There is no result where the fitted matrices predict these worse by more than two standard
    errors. The same seed, text and machine give the same matrices.

    Args:
        model: The loaded model.
        matrices: Its new matrices, to start from.
        passages: The text.
        lead: Ids that come before every passage (bos, or none).
        settings: How the calibration runs.
        seed: Seed of the order of passages.
        progress: Whether to show a progress bar.
    """
    kept = list(passages[:: settings.held_out])
    seen = [passage for n, passage in enumerate(passages) if n % settings.held_out]
    torch.manual_seed(seed)
    batches = _training_batches(seen, settings, np.random.default_rng(seed))
    begin = time.perf_counter()
    compact = CompactModel(model, matrices, _active(passages, lead))
    try:
        fitted = _freeze_rare_rows(compact, seen, settings.often)
        before = _bits(compact, kept, lead, settings.batch)
        _train(compact, batches, lead, settings, progress)
        after = _bits(compact, kept, lead, settings.batch)
        result = compact.result() if _as_good(before, after) else None
    finally:
        compact.close()
    size = sum(passage.bytes for passage in kept)
    history = {
        "passages": len(passages),
        "bytes": sum(passage.bytes for passage in passages),
        "tokens": sum(len(passage.ids) for passage in passages),
        "tokens_trained": sum(len(passage.ids) for batch in batches for passage in batch),
        "rows_fitted": fitted,
        "held_out_bits_per_byte": [round(float(bits.sum()) / size, 4) for bits in (before, after)],
        "seconds": round(time.perf_counter() - begin, 1),
    }
    return Calibrated(result, history)


def _training_batches(
    seen: Sequence[Passage], settings: Calibration, order: np.random.Generator
) -> list[list[Passage]]:
    """Return the batches of all epochs. A text with too many tokens is read in part, another part in each epoch."""
    size = sum(len(passage.ids) for passage in seen)
    epochs = max(1, min(settings.epochs, round(settings.tokens / size)))
    some = max(1, round(len(seen) * min(1.0, settings.tokens / (epochs * size))))
    return [
        batch
        for _ in range(epochs)
        for batch in _batches([seen[n] for n in order.permutation(len(seen))[:some].tolist()], settings.batch)
    ]


def _freeze_rare_rows(compact: CompactModel, seen: Sequence[Passage], often: int) -> int:
    """Train only the rows of tokens that occur often enough; return how many these are."""
    # A row that occurs a few times would learn these places by heart.
    places = np.concatenate([compact.place[passage.ids] for passage in seen])
    counts = np.bincount(places, minlength=len(compact.active))
    trained = torch.from_numpy(counts >= often).float().unsqueeze(1).to(compact.rows.device)
    for row in compact.parameters[0]:
        row.register_hook(lambda gradient: gradient * trained)  # type: ignore[no-untyped-call]
    return int(trained.sum())


def _train(
    compact: CompactModel,
    batches: Sequence[Sequence[Passage]],
    lead: Sequence[int],
    settings: Calibration,
    progress: bool,
) -> None:
    """Take one step per batch."""
    rows, maps = compact.parameters
    factors = [1.0] if len(rows) == 1 else [_INPUT_RATE, _OUTPUT_RATE]
    groups = [
        {"params": [row], "lr": settings.rate * factor * float(row.detach().square().mean().sqrt())}
        for row, factor in zip(rows, factors, strict=True)
    ]
    optimiser = torch.optim.Adam([*groups, {"params": maps, "lr": settings.map_rate}], betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / _WARM_STEPS, max(1 - step / max(len(batches), 1), _LAST_RATE))
    )
    with tqdm(total=len(batches), desc="calibrate", unit="step", disable=None if progress else True) as bar:
        for batch in batches:
            loss = _token_losses(compact, batch, lead)[0].mean()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            bar.update()


def _as_good(before: np.ndarray, after: np.ndarray) -> bool:
    """Return whether the passages are not clearly harder to predict than before. before, after: bits, float64 [n]."""
    worse = after - before
    doubt = 2 * worse.std(ddof=1) / math.sqrt(len(worse)) if len(worse) > 1 else 0.0
    harm = worse.mean() > doubt
    return bool(np.isfinite(after).all() and not harm)


def _active(passages: Sequence[Passage], lead: Sequence[int]) -> np.ndarray:
    """Return the target ids that occur, ascending."""
    return np.unique(np.concatenate([np.array(lead, np.int64), *(passage.ids for passage in passages)]))


def _batches(passages: Sequence[Passage], tokens: int) -> list[list[Passage]]:
    """Group passages into batches of about `tokens` tokens, padding included. Their order stays as it is."""
    # Passages are not sorted by their number of tokens: batches of like passages would make lopsided steps.
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
    """Return the losses of a batch's predicted tokens in nats, float32 [n], and the passage of each, int64 [n]."""
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
    """Return the loss of each passage in bits, float64 [n]."""
    bits: list[float] = []
    with torch.no_grad():
        for batch in _batches(passages, tokens):
            losses, owner = _token_losses(compact, batch, lead)
            total = torch.zeros(len(batch), dtype=torch.float64, device=losses.device)
            bits += total.index_add(0, owner, losses.double()).tolist()
    return np.array(bits) / math.log(2)
