"""Several models of bytes as one: a weighted sum of their next-byte probabilities."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.ensemble.bytewise.canonical import check_family
from tokswap.ensemble.bytewise.reader import END, ByteModel, Reader
from tokswap.errors import InputError, UsageError
from tokswap.evaluation.losses import load_model
from tokswap.storage.resolve import resolve_model
from tokswap.tokenizer.tokenizer import read_tokenizer

_CHUNK = 256


@dataclass(frozen=True)
class ByteScore:
    """What a text costs, every byte of it and not its end. bits: of the mixture. members: of each model by itself, in bits."""

    bits: float
    members: tuple[float, ...]
    bytes: int

    @property
    def bits_per_byte(self) -> float:
        """The mixture's loss."""
        return self.bits / self.bytes

    @property
    def member_bits_per_byte(self) -> tuple[float, ...]:
        """Each model's loss by itself."""
        return tuple(bits / self.bytes for bits in self.members)


@dataclass(frozen=True)
class ByteMixture:
    """Models of bytes and their weights, which add up to 1."""

    models: tuple[ByteModel, ...]
    weights: tuple[float, ...]

    def read(self, text: bytes = b"") -> list[Reader]:
        """Have every model read the beginning of a text; see `Reader`."""
        return [model.read(text) for model in self.models]

    def distribution(self, readers: Sequence[Reader]) -> np.ndarray:
        """Return float64[257], the mixed probability of each next byte and, last, of the end."""
        found: np.ndarray = np.array(self.weights) @ np.stack([reader.distribution() for reader in readers])
        return found

    def score(self, text: str, *, done: Callable[[int], object] | None = None) -> ByteScore:
        """Say what a text costs the mixture and each of its models. done: called with the bytes that each step has added.

        Raises InputError empty-text.
        """
        data = text.encode("utf-8")
        if not data:
            raise InputError("empty-text", "there is no text to evaluate", "give a file with some text in it")
        readers = self.read()
        mixed, members = 0.0, np.zeros(len(self.models))
        for start in range(0, len(data), _CHUNK):
            part = data[start : start + _CHUNK]
            values = np.frombuffer(part, np.uint8)
            chances = np.stack([reader.advance(part)[np.arange(len(part)), values] for reader in readers])
            with np.errstate(divide="ignore"):  # what a model rules out costs it infinitely much
                members -= np.log2(chances).sum(axis=1)
                mixed -= float(np.log2(np.array(self.weights) @ chances).sum())
            if done:
                done(len(part))
        return ByteScore(mixed, tuple(members.tolist()), len(data))

    def generate(self, prompt: str, *, most: int = 256, temperature: float = 0.0, seed: int = 0) -> Iterator[str]:
        """Go on from a prompt, up to `most` bytes or the end; yields text as soon as its characters are whole.

        temperature: 0 takes the likeliest byte each time. Raises UsageError bad-temperature.
        """
        if not 0 <= temperature < float("inf"):
            raise UsageError("bad-temperature", f"a temperature is 0 or more, not {temperature}")
        random = np.random.default_rng(seed)
        readers = self.read(prompt.encode("utf-8"))
        decoder = codecs.getincrementaldecoder("utf-8")()
        for _ in range(most):
            chances = self.distribution(readers)
            if temperature:
                logs = np.log(np.maximum(chances, 1e-300)) / temperature
                sharp = np.exp(logs - logs.max()) * (chances > 0)
                byte = int(random.choice(257, p=sharp / sharp.sum()))
            else:
                byte = int(chances.argmax())
            if byte == END:
                return
            if piece := decoder.decode(bytes([byte])):
                yield piece
            for reader in readers:
                reader.advance(bytes([byte]), wanted=False)


def load_byte_mix(
    names: Sequence[str],
    weights: Sequence[float] | None = None,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    trust_remote_code: bool = False,
    **options: Any,
) -> ByteMixture:
    """Load models by their names (folders, hub ids, aliases, .gguf files) and mix them; see `byte_mix`.

    What tokenizers and weights forbid is said before a model is loaded. Raises what `byte_mix` and `load_model` raise.
    """
    _shares(len(names), weights)
    folders = [resolve_model(name) for name in names]
    for folder in folders:
        check_family(read_tokenizer(folder, trust_remote_code=trust_remote_code))
    models = [load_model(folder, dtype=dtype, device=device, trust_remote_code=trust_remote_code) for folder in folders]
    return byte_mix(models, weights, **options)


def byte_mix(models: Sequence[tuple[Any, Any]], weights: Sequence[float] | None = None, **options: Any) -> ByteMixture:
    """Mix models that keep their own tokenizers.

    models: (model, tokenizer) pairs, as `tokswap.evaluate.load_model` gives them; the tokenizer is read again from its
    folder. weights: one a model, made to add up to 1; equal by default. options: of `ByteModel`.
    Raises UsageError bad-weights, bad-window; InputError not-bytewise.
    """
    shares = _shares(len(models), weights)
    members = tuple(
        ByteModel(model, read_tokenizer(Path(tokenizer.name_or_path)), **options) for model, tokenizer in models
    )
    return ByteMixture(members, shares)


def _shares(count: int, weights: Sequence[float] | None) -> tuple[float, ...]:
    shares = np.ones(count) if weights is None else np.array(weights, np.float64)
    if len(shares) != count or not count or not (shares > 0).all() or not np.isfinite(shares).all():
        raise UsageError(
            "bad-weights", f"{count} models need as many weights, each above 0: {', '.join(map(str, shares.tolist()))}"
        )
    return tuple((shares / shares.sum()).tolist())
