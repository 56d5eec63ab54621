"""Asks a model the questions of the probes, and counts its right answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokswap.errors import UsageError, did_you_mean
from tokswap.evaluation.probes.answers import Answers, chosen, replied, written
from tokswap.evaluation.probes.arithmetic import arithmetic
from tokswap.evaluation.probes.chat import chat
from tokswap.evaluation.probes.facts import facts
from tokswap.evaluation.probes.question import Question
from tokswap.evaluation.probes.spelling import spelling

PROBES: Mapping[str, Callable[[int, int], list[Question]]] = {
    "spelling": spelling,
    "arithmetic": arithmetic,
    "facts": facts,
    "chat": chat,
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
            message = f"there is no probe {name!r}{did_you_mean(name, PROBES)}"
            raise UsageError("unknown-probe", message, f"the probes are {', '.join(PROBES)}")


def ask(model: Any, tokenizer: Any, questions: Sequence[Question], *, show: str = "") -> Asked:
    """Ask a model.

    An answer that the model writes must be exactly right up to the end of its line. Of several choices the one with
    the fewest bits per byte counts as its answer, so that tokenizers compare. A reply of a conversation must end by
    itself.

    Args:
        model: A loaded causal language model, in evaluation mode.
        tokenizer: Its transformers tokenizer.
        questions: The questions, all of one kind.
        show: What a progress bar names, "" for no bar.

    Raises:
        InputError: no-chat-template, bad-chat.
    """
    from tqdm.auto import tqdm

    measure, answers = _kind(questions[0])
    with tqdm(total=len(questions), desc=show, unit="question", disable=not show, leave=False) as bar:
        right = answers(model, tokenizer, questions, bar.update)
    parts = tuple(question.part for question in questions)
    return Asked(measure, parts, points=np.array(right, np.float64), chance=_chance(questions))


def _kind(question: Question) -> tuple[str, Answers]:
    """Return what a point of such questions is, and the function that finds which answers are right."""
    if question.messages:
        return "replies that end", replied
    return ("accuracy", chosen) if question.choices else ("exact match", written)


def _chance(questions: Sequence[Question]) -> dict[str, float]:
    """Return what each part scores with one answer to all of its questions, with any choice, or with no end."""
    answers: dict[str, list[str]] = {}
    for question in questions:
        answers.setdefault(question.part, []).append(question.answer)
    if questions[0].messages:
        return dict.fromkeys(answers, 0.0)
    if questions[0].choices:
        return dict.fromkeys(answers, 1 / len(questions[0].choices))
    return {part: max(Counter(own).values()) / len(own) for part, own in answers.items()}
