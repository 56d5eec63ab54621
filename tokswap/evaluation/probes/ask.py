"""Asks a model the questions of probes: it writes an answer, or the likeliest choice per byte is its answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokswap.errors import UsageError, did_you_mean
from tokswap.evaluation.losses import greedy, token_losses
from tokswap.evaluation.probes.arithmetic import arithmetic
from tokswap.evaluation.probes.facts import facts
from tokswap.evaluation.probes.question import Question
from tokswap.evaluation.probes.spelling import spelling

PROBES: Mapping[str, Callable[[int, int], list[Question]]] = {
    "spelling": spelling,
    "arithmetic": arithmetic,
    "facts": facts,
}
"""Name -> its questions, for a number of questions of each part and a seed."""


@dataclass(frozen=True)
class Asked:
    """How a model did on a probe.

    Attributes:
        measure: What a point is: "exact match", "accuracy", or the metric of a task.
        parts: The part of each question.
        points: What each answer scored, 1 for a right one (float64 [n]).
        chance: Part -> what a model that knows nothing scores.
    """

    measure: str
    parts: tuple[str, ...]
    points: np.ndarray
    chance: Mapping[str, float]


def check_probes(names: Sequence[str]) -> None:
    """Refuse probes that do not exist.

    Raises:
        UsageError: unknown-probe.
    """
    for name in names:
        if name not in PROBES:
            message = f"there is no probe {name!r}.{did_you_mean(name, PROBES)}"
            raise UsageError("unknown-probe", message, f"the probes are {', '.join(PROBES)}")


def ask(model: Any, tokenizer: Any, questions: Sequence[Question], *, show: str = "") -> Asked:
    """Ask a model.

    An answer that the model writes must be exactly right up to the end of its line. Of several choices the one with
    the fewest bits per byte counts as its answer, so that tokenizers compare.

    Args:
        model: A loaded causal language model, in evaluation mode.
        tokenizer: Its transformers tokenizer.
        questions: The questions, all with choices or all without.
        show: What a progress bar names, "" for no bar.
    """
    from tqdm.auto import tqdm

    answer = _chosen if questions[0].choices else _written
    bar = tqdm(questions, desc=show, unit="question", disable=not show, leave=False)
    right = [answer(model, tokenizer, question) == question.answer for question in bar]
    measure = "accuracy" if questions[0].choices else "exact match"
    parts = tuple(question.part for question in questions)
    return Asked(measure, parts, points=np.array(right, np.float64), chance=_chance(questions))


def _written(model: Any, tokenizer: Any, question: Question) -> str:
    """Return the line that the model writes. No token is shorter than a byte, so a right answer always fits."""
    text = greedy(model, tokenizer, question.prompt, len(question.answer.encode("utf-8")) + 2)
    return text.strip(" ").split("\n")[0].strip()


def _chosen(model: Any, tokenizer: Any, question: Question) -> str:
    bits = [_bits_per_byte(model, tokenizer, question.prompt, f" {choice}") for choice in question.choices]
    return question.choices[int(np.argmin(bits))]


def _bits_per_byte(model: Any, tokenizer: Any, prompt: str, ending: str) -> float:
    """Return the loss of the tokens that reach past the prompt, per byte of the ending."""
    losses = token_losses(model, tokenizer, prompt + ending)
    past = losses.offsets[1:] > len(prompt.encode("utf-8"))
    return float(losses.bits[past].sum()) / len(ending.encode("utf-8"))


def _chance(questions: Sequence[Question]) -> dict[str, float]:
    """Return what each part scores with one answer to all of its questions, or with any choice."""
    answers: dict[str, list[str]] = {}
    for question in questions:
        answers.setdefault(question.part, []).append(question.answer)
    if questions[0].choices:
        return dict.fromkeys(answers, 1 / len(questions[0].choices))
    return {part: max(Counter(own).values()) / len(own) for part, own in answers.items()}
