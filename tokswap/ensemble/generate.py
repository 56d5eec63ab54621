"""Continues a prompt with an ensemble, and hands out the text as it is written."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.generation.streamers import BaseStreamer

from tokswap.ensemble.boundary import Prompt, beginnings
from tokswap.ensemble.bytewise import ByteMixture
from tokswap.errors import UsageError
from tokswap.evaluation.models import plain_generation
from tokswap.evaluation.prompts import check_ids, check_prompt, prompt_ids, within_positions
from tokswap.seeds import own_seed
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
        exact: Whether the prompt was allowed to end inside a token.
    """

    text: str
    tokens: int
    seconds: float
    exact: bool = True


class _Stream(BaseStreamer):  # type: ignore[misc]
    """Hands the text of tokens to a function, as soon as its characters are whole.

    Args:
        vocabulary: The tokens.
        ends: Ids of tokens that are not text here.
        write: Takes the text.
    """

    def __init__(self, vocabulary: Vocabulary, ends: Collection[int], write: Callable[[str], object]) -> None:
        kind = vocabulary.kind
        text = (kind == Kind.NORMAL) | (kind == Kind.BYTE)
        text[[*ends]] = False
        self._bytes = [own if is_text else b"" for own, is_text in zip(vocabulary.token_bytes, text, strict=True)]
        self._write = write
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._prompt = True

    def put(self, value: Any) -> None:
        """Take the next tokens; those that come first are the prompt."""
        ids, self._prompt = [] if self._prompt else value.flatten().tolist(), False
        self.put_bytes(b"".join(self._bytes[token] for token in ids if token < len(self._bytes)))

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
    prompt: str | Prompt,
    *,
    tokens: int = 64,
    temperature: float | None = None,
    seed: int = 0,
    exact: bool = True,
    write: Callable[[str], object] = lambda text: None,
) -> Continuation:
    """Continue a prompt until eos.

    Args:
        model: A model with `generate`, such as a `MixedModel`.
        tokenizer: Its transformers tokenizer.
        prompt: The beginning of the text, or its tokens.
        tokens: Tokens to write at most.
        temperature: Sampling temperature. None takes the most likely token each time.
        seed: Seed of the sampling.
        exact: Whether the prompt may end inside a token; see `tokswap.ensemble.boundary`. False takes it as it is
            tokenized.
        write: Called with each piece of text.

    Raises:
        UsageError: bad-temperature, bad-prompt, empty-prompt.
    """
    if temperature is not None and not 0 < temperature < float("inf"):
        hint = "leave out --sample and --temperature for the most likely token"
        raise UsageError("bad-temperature", f"--temperature must be above 0, not {temperature}", hint)
    given = Prompt(tuple(prompt_ids(tokenizer, prompt))) if isinstance(prompt, str) else prompt
    check_ids(given.ids)
    how: dict[str, Any] = {"do_sample": temperature is not None}
    how |= {} if temperature is None else {"temperature": temperature, "top_k": 0}
    how |= {} if given.ends is None else {"eos_token_id": list(given.ends)}
    pieces: list[str] = []

    def take(text: str) -> None:
        pieces.append(text)
        write(text)

    begin = time.perf_counter()
    read = read_loaded(tokenizer)
    stream = _Stream(read.vocabulary, given.ends or (), take)
    count, ended, ids = 0, False, list(given.ids)
    with within_positions(getattr(model, "members", [model]), len(ids) + tokens):
        found = _first(model, read, given, temperature, np.random.default_rng(seed)) if exact else None
        if found is not None:
            ids, new = found
            stream.put_bytes(new)
            count, ended = 1, not new
        if tokens > count and not ended:
            inputs = torch.tensor([ids], device=model.device)
            more = {"attention_mask": torch.ones_like(inputs), "max_new_tokens": tokens - count, "streamer": stream}
            with plain_generation(model), own_seed(seed):
                output = model.generate(inputs, **more, **how)
            count += int(output.shape[1] - inputs.shape[1])
    stream.end()
    return Continuation("".join(pieces), count, time.perf_counter() - begin, exact=found is not None)


def _first(
    model: Any, tokenizer: Tokenizer, prompt: Prompt, temperature: float | None, random: np.random.Generator
) -> tuple[list[int], bytes] | None:
    """Choose the first token, with the end of the prompt left open.

    Returns:
        The tokens up to it, and its bytes past the prompt, b"" for the end of the text; None where nothing is left
        open.
    """
    found = beginnings(model, tokenizer, prompt)
    if found is None:
        return None
    place = found.choose(temperature, random)
    return (list(prompt.ids), b"") if place == len(found.ids) else (found.ids[place], found.new[place])


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
        UsageError: bad-temperature, bad-prompt.
    """
    check_prompt(prompt)
    pieces: list[str] = []
    begin = time.perf_counter()
    for piece in mixture.generate(prompt, most=most, temperature=temperature or 0.0, seed=seed):
        pieces.append(piece)
        write(piece)
    text = "".join(pieces)
    return Continuation(text, len(text.encode("utf-8")), time.perf_counter() - begin)
