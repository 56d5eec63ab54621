"""Continues a prompt with an ensemble, and hands out the text as it is written."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import set_seed
from transformers.generation.streamers import BaseStreamer

from tokswap.ensemble.boundary import beginnings
from tokswap.ensemble.bytewise import ByteMixture
from tokswap.errors import UsageError
from tokswap.tokenizer.loaded import read_loaded
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind, Vocabulary


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


class _Stream(BaseStreamer):  # type: ignore[misc]
    """Hands the text of tokens to a function, as soon as its characters are whole.

    Args:
        vocabulary: The tokens.
        write: Takes the text.
    """

    def __init__(self, vocabulary: Vocabulary, write: Callable[[str], object]) -> None:
        self._vocabulary, self._write = vocabulary, write
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._prompt = True

    def put(self, value: Any) -> None:
        """Take the next tokens; those that come first are the prompt."""
        ids, self._prompt = [] if self._prompt else value.flatten().tolist(), False
        kinds = (Kind.NORMAL, Kind.BYTE)
        own = [token for token in ids if token < len(self._vocabulary) and self._vocabulary.kind[token] in kinds]
        self.put_bytes(b"".join(self._vocabulary.token_bytes[token] for token in own))

    def put_bytes(self, data: bytes) -> None:
        """Take the next bytes."""
        if text := self._decoder.decode(data):
            self._write(text)

    def end(self) -> None:
        """Take the end: what is left of a character cannot become whole."""
        if text := self._decoder.decode(b"", final=True):
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

    The prompt may end inside a token; see `tokswap.ensemble.boundary`.

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
    read = read_loaded(tokenizer)
    stream = _Stream(read.vocabulary, take)
    found = _first(model, read, inputs["input_ids"][0].tolist(), temperature, np.random.default_rng(seed))
    count, ended = 0, False
    if found is not None:
        ids, new = found
        inputs = {"input_ids": torch.tensor([ids], device=model.device)}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        stream.put_bytes(new)
        count, ended = 1, not new
    if tokens > count and not ended:
        output = model.generate(**inputs, max_new_tokens=tokens - count, streamer=stream, **how)
        count += int(output.shape[1] - inputs["input_ids"].shape[1])
    stream.end()
    return Continuation("".join(pieces), count, time.perf_counter() - begin)


def _first(
    model: Any, tokenizer: Tokenizer, ids: Sequence[int], temperature: float | None, random: np.random.Generator
) -> tuple[list[int], bytes] | None:
    """Choose the first token, with the end of the prompt left open.

    Returns:
        The tokens up to it, and its bytes past the prompt, b"" for the end of the text; None where nothing is left
        open.
    """
    found = beginnings(model, tokenizer, ids)
    if found is None:
        return None
    place = found.choose(temperature, random)
    return (list(ids), b"") if place == len(found.ids) else (found.ids[place], found.new[place])


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
