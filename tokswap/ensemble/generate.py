"""Lets an ensemble go on from a prompt, and hands out the text as it comes."""

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
    """What was written: the text, the tokens (or bytes) that it took, and the seconds."""

    text: str
    tokens: int
    seconds: float


class _Stream(TextStreamer):  # type: ignore[misc]
    """Gives text to a function instead of printing it: whole words, and no half character."""

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
    """Go on from a prompt by at most `tokens` tokens; stops at eos.

    temperature: draw from the mix at this temperature, None for the likeliest token each time. write: given the text as
    it comes. Raises UsageError bad-temperature, empty-prompt.
    """
    if temperature is not None and not 0 < temperature < float("inf"):
        raise UsageError(
            "bad-temperature", f"a temperature is above 0, not {temperature}", "leave out --sample for the likeliest"
        )
    encoded = tokenizer(prompt, return_tensors="pt").to(model.device)
    inputs = {key: encoded[key] for key in ("input_ids", "attention_mask")}
    if not inputs["input_ids"].shape[1]:
        raise UsageError("empty-prompt", "there is nothing to go on from", "give a --prompt with some text in it")
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
    """Go on from a prompt by at most `most` bytes, as members of bytes predict them; the Continuation counts bytes.

    The rest is as for `continue_text`. Raises UsageError bad-temperature.
    """
    pieces: list[str] = []
    begin = time.perf_counter()
    for piece in mixture.generate(prompt, most=most, temperature=temperature or 0.0, seed=seed):
        pieces.append(piece)
        write(piece)
    text = "".join(pieces)
    return Continuation(text, len(text.encode("utf-8")), time.perf_counter() - begin)
