"""How models answer the questions of the probes: they write a line, choose an ending, or reply in a conversation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from tokswap.evaluation.continuations import continuations, end_tokens
from tokswap.evaluation.losses import ending_bits
from tokswap.evaluation.probes.question import Question
from tokswap.evaluation.probes.template import markers, opened, repeats

Done = Callable[[float], object]
"""Counts questions that were answered."""
Answers = Callable[[Any, Any, Sequence[Question], Done], list[bool]]
"""Which questions a model answers well: of a model, its tokenizer, the questions, and what counts the progress."""
REPLY_TOKENS = 128
"""Most tokens of a reply."""


def written(model: Any, tokenizer: Any, questions: Sequence[Question], done: Done) -> list[bool]:
    """Return whether the line that the model writes is the answer. It stops as soon as that is decided."""

    def text(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True))

    right: dict[Question, bool] = {}
    for part in dict.fromkeys(question.part for question in questions):  # a part shares its solved examples
        own = [question for question in questions if question.part == part]
        found = continuations(
            model,
            [tokenizer(question.prompt)["input_ids"] for question in own],
            # no token is shorter than a byte, so a right answer and the end of its line always fit
            [len(question.answer.encode("utf-8")) + 2 for question in own],
            stop=lambda n, ids, own=own: decided(text(ids), own[n].answer),  # type: ignore[misc]
            done=done,
        )
        right |= {question: _line(text(ids)) == question.answer for question, ids in zip(own, found, strict=True)}
    return [right[question] for question in questions]


def decided(text: str, answer: str) -> bool:
    """Return whether more text cannot change the verdict: the line has ended, or already differs from the answer."""
    text = text.strip(" ")
    begun = text.rstrip("\ufffd").strip()  # the last character may lack bytes
    return "\n" in text or not answer.startswith(begun)


def _line(text: str) -> str:
    return text.strip(" ").split("\n")[0].strip()


def chosen(model: Any, tokenizer: Any, questions: Sequence[Question], done: Done) -> list[bool]:
    """Return whether the right one of the endings has the fewest bits per byte."""
    width = len(questions[0].choices)
    pairs = [(question.prompt, f" {choice}") for question in questions for choice in question.choices]
    bits = ending_bits(model, tokenizer, pairs, done=lambda n: done(n / width))
    sizes = np.array([len(ending.encode("utf-8")) for _, ending in pairs])
    best = (bits / sizes).reshape(-1, width).argmin(1).tolist()
    return [question.choices[n] == question.answer for question, n in zip(questions, best, strict=True)]


def replied(model: Any, tokenizer: Any, questions: Sequence[Question], done: Done) -> list[bool]:
    """Return whether each reply ends by itself, is not empty, and holds nothing that belongs to the chat template."""
    marks = markers(tokenizer)
    ends = {*end_tokens(model)}
    replies = continuations(
        model,
        [opened(tokenizer, question.messages) for question in questions],
        [REPLY_TOKENS] * len(questions),
        padded=True,
        done=done,
    )
    return [_clean(tokenizer, ids, ends, marks) for ids in replies]


def _clean(tokenizer: Any, ids: Sequence[int], ends: Collection[int], marks: Sequence[str]) -> bool:
    reply, last = ids[:-1], ids[-1]
    said = str(tokenizer.decode(reply)).strip()
    return last in ends and bool(said) and not repeats(tokenizer, reply, marks)
