"""Continues a prompt with an ensemble, and hands out the text as it is written."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import TextStreamer, set_seed

from tokswap.ensemble.bytewise import ByteMixture
from tokswap.errors import UsageError


@dataclass(frozen=True)
class Continuation:
    """What was written.

    Attributes:
        text: The text after the prompt.
        tokens: Tokens that were written; bytes, if a byte mixture wrote them.
        seconds: The time it took.
    """

    text: str
    tokens: int
    seconds: float


class _Stream(TextStreamer):  # type: ignore[misc]
    """Hands text to a function instead of printing it. It waits for whole words and characters."""

    def __init__(self, tokenizer: Any, write: Callable[[str], object]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._write = write

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self._write(text)


def continue_text(
    model: Any,
    tokenizer: Any,
    prompt: str,
    *,
    tokens: int = 64,
    temperature: float | None = None,
    seed: int = 0,
    write: Callable[[str], object] = lambda text: None,
) -> Continuation:
    """Continue a prompt until eos.

    Args:
        model: A model with `generate`, such as a `MixedModel`.
        tokenizer: Its transformers tokenizer.
        prompt: The beginning of the text.
        tokens: Tokens to write at most.
        temperature: Sampling temperature. None takes the most likely token each time.
        seed: Seed of the sampling.
        write: Called with each piece of text.

    Raises:
        UsageError: bad-temperature, empty-prompt.
    """
    if temperature is not None and not 0 < temperature < float("inf"):
        hint = "leave out --sample and --temperature for the most likely token"
        raise UsageError("bad-temperature", f"--temperature must be above 0, not {temperature}", hint)
    encoded = tokenizer(prompt, return_tensors="pt").to(model.device)
    inputs = {key: encoded[key] for key in ("input_ids", "attention_mask")}
    if not inputs["input_ids"].shape[1]:
        raise UsageError("empty-prompt", "the prompt has no token", "give a --prompt with some text in it")
    set_seed(seed)
    how = {"do_sample": False} if temperature is None else {"do_sample": True, "temperature": temperature, "top_k": 0}
    pieces: list[str] = []

    def take(text: str) -> None:
        pieces.append(text)
        write(text)

    begin = time.perf_counter()
    output = model.generate(**inputs, max_new_tokens=tokens, streamer=_Stream(tokenizer, take), **how)
    seconds = time.perf_counter() - begin
    return Continuation("".join(pieces), int(output.shape[1] - inputs["input_ids"].shape[1]), seconds)


def continue_bytes(
    mixture: ByteMixture,
    prompt: str,
    *,
    most: int = 64,
    temperature: float | None = None,
    seed: int = 0,
    write: Callable[[str], object] = lambda text: None,
) -> Continuation:
    """Continue a prompt byte by byte until the end.

    Args:
        mixture: The models.
        prompt: The beginning of the text.
        most: Bytes to write at most.
        temperature: Sampling temperature. None takes the most likely byte each time.
        seed: Seed of the sampling.
        write: Called with each piece of text.

    Raises:
        UsageError: bad-temperature.
    """
    pieces: list[str] = []
    begin = time.perf_counter()
    for piece in mixture.generate(prompt, most=most, temperature=temperature or 0.0, seed=seed):
        pieces.append(piece)
        write(piece)
    text = "".join(pieces)
    return Continuation(text, len(text.encode("utf-8")), time.perf_counter() - begin)
