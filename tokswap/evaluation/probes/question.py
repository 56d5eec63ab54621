"""What a probe asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        part: The part of the probe that it belongs to.
        prompt: What the model reads, or the last message of a conversation; it ends without a space.
        answer: The right continuation, without the space before it; "" where any reply will do.
        choices: The continuations to choose from, the right one among them; () for an answer that the model writes.
        messages: The role and content of each message of a conversation, () where there is none.
    """

    part: str
    prompt: str
    answer: str
    choices: tuple[str, ...] = ()
    messages: tuple[tuple[str, str], ...] = ()


def shots(form: str, examples: Sequence[tuple[str, str]]) -> str:
    """Return the solved examples that stand before a question.

    Args:
        form: How a question is written, with `{}` for its subject.
        examples: Subjects and answers.
    """
    return "".join(f"{form.format(subject)} {answer}\n" for subject, answer in examples)
