"""Prompts that a user gives: their tokens, and what is said where a model cannot go on from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tokswap.checkpoint.positions import longest_input_of
from tokswap.errors import UsageError


def check_prompt(prompt: str) -> None:
    """Check that a prompt is UTF-8, which need not be so with what a shell passes on.

    Raises:
        UsageError: bad-prompt.
    """
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        message = f"the prompt is not UTF-8: character {error.start + 1:,} is half of a surrogate pair or a stray byte"
        raise UsageError("bad-prompt", message, "give it as UTF-8 text") from error


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """Return the ids of a prompt.

    Args:
        tokenizer: The transformers tokenizer of the model.
        prompt: The beginning of a text.

    Raises:
        UsageError: bad-prompt, empty-prompt.
    """
    check_prompt(prompt)
    ids: list[int] = tokenizer(prompt)["input_ids"]
    check_ids(ids)
    return ids


def check_ids(ids: Sequence[int]) -> None:
    """Check that a prompt has a token. Raises UsageError empty-prompt."""
    if not ids:
        raise UsageError("empty-prompt", "the prompt has no token", "give a prompt with some text in it")


@contextmanager
def within_positions(models: Sequence[Any], tokens: int) -> Iterator[None]:
    """Explain a failure in a block as a text with more tokens than the model has positions, if it is one.

    Models that compute their positions read more of them, so that only a failure tells.

    Args:
        models: The loaded models.
        tokens: Tokens of the prompt and its continuation, at most.

    Raises:
        UsageError: bad-prompt.
    """
    try:
        yield
    except (IndexError, RuntimeError) as error:
        limits = [limit for model in models if (limit := longest_input_of(model)) is not None]
        if not limits or tokens <= min(limits):
            raise
        message = f"a prompt and its continuation of {tokens:,} tokens are more than the {min(limits):,} of the model"
        raise UsageError("bad-prompt", message, "shorten the prompt, or write fewer --tokens") from error
