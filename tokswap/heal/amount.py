"""How much text can be trained on in the time that there is, and which part of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tokswap.heal.inputs import HealInputs
from tokswap.heal.text import HealText, Passage

_EVALUATIONS = 7
_SPARE = 1.15


def fitting(inputs: HealInputs, text: HealText, seconds: float) -> HealText:
    """Return as much of the text as can be trained on in the minutes that the user gives; all of it without.

    Passages are drawn by how much the two tokenizers differ there: most of what is to be learnt lies in these places.

    Args:
        inputs: The models.
        text: The text.
        seconds: What the teacher needed for the held-out text. The time of a step follows by the operations of both.
    """
    options = inputs.options
    if options.minutes is None:
        return text
    reading, step = flops_per_token(inputs, teacher=True), flops_per_token(inputs)
    read = sum(len(one.teacher.ids) for one in text.held_out)
    rate = seconds / max(read * reading, 1)  # seconds of an operation
    student = sum(len(one.student.ids) for one in text.held_out)
    judging = _EVALUATIONS * student * rate * flops_per_token(inputs, judging=True)
    spent, left = 0.0, options.minutes * 60 / _SPARE - seconds - judging
    cost = [
        rate
        * ((len(one.teacher.ids) * reading if options.kl > 0 else 0.0) + options.epochs * len(one.student.ids) * step)
        for one in text.training
    ]
    order = _drawn(chances(text.training, options.chats), options.seed)
    kept: list[int] = []
    for n in order:
        spent += cost[n]
        if kept and spent > left:
            break
        kept.append(n)
    return replace(text, training=tuple(text.training[n] for n in sorted(kept)))


def chances(passages: Sequence[Passage], chats: Iterable[str | Path] = ()) -> np.ndarray:
    """Return how often each passage should be drawn, relative to others: by how much the two tokenizers differ in it.

    Conversations keep their share. Where the tokenizers differ nowhere, all passages have the same chance.

    Args:
        passages: The passages.
        chats: Files of conversations.

    Returns:
        float64 [n].
    """
    names = {Path(path).name for path in chats}
    found = np.array([one.differences for one in passages], np.float64)
    talks = np.array([one.name in names for one in passages], bool)
    if not found[~talks].any():
        return np.ones(len(found))
    found[talks] = found[~talks].mean()
    return found


def _drawn(shares: np.ndarray, seed: int) -> list[int]:
    """Draw places in proportion to their shares, each once; those without any come last.

    Reference:
        Efraimidis, Spirakis 2006 (weighted random sampling without replacement)
    """
    times = np.random.default_rng(seed).exponential(size=len(shares)) / np.maximum(shares, 1e-6)
    order: list[int] = np.argsort(times).tolist()
    return order


def flops_per_token(inputs: HealInputs, *, teacher: bool = False, judging: bool = False) -> float:
    """Return the floating-point operations of one token: of a step, or of a forward pass alone."""
    checkpoint = (inputs.teacher if teacher else inputs.student).checkpoint
    matrix = checkpoint.matrices[0]
    head = matrix.rows * matrix.width
    tables = sum(math.prod(one.shape) for one in checkpoint.matrices)
    body = sum(math.prod(one.shape) for one in checkpoint.tensors.values()) - tables
    if teacher or judging:
        return 2.0 * (body + head)
    return (6.0 if inputs.options.train == "full" else 4.0) * body + 6.0 * head
