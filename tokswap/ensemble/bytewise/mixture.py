"""Several models of bytes as one: a weighted sum of their next-byte probabilities."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tokswap.ensemble.bytewise.covers import END
from tokswap.ensemble.bytewise.reader import ByteModel, Reader
from tokswap.errors import InputError, UsageError

_CHUNK = 256
"""Bytes that are scored in one step."""
_AHEAD = 32
"""Bytes that are read ahead at most."""
_LIKELY = 0.12
"""A byte with less than this probability is not guessed: it takes time to read, and most such guesses are wrong."""
_SAME = 8
"""Bytes that must have been in the text before, for what followed them to be guessed again."""


@dataclass(frozen=True)
class ByteScore:
    """The loss of a text. Every byte of it counts, its end does not.

    Attributes:
        bits: Loss of the mixture, in bits.
        members: Loss of each model alone, in bits.
        bytes: Size of the text.
    """

    bits: float
    members: tuple[float, ...]
    bytes: int

    @property
    def bits_per_byte(self) -> float:
        """Loss of the mixture, in bits per byte."""
        return self.bits / self.bytes

    @property
    def member_bits_per_byte(self) -> tuple[float, ...]:
        """Loss of each model alone, in bits per byte."""
        return tuple(bits / self.bytes for bits in self.members)


@dataclass(frozen=True)
class ByteMixture:
    """Models of bytes, mixed.

    Attributes:
        models: The models.
        weights: Weight of each; they add up to 1.
    """

    models: tuple[ByteModel, ...]
    weights: tuple[float, ...]

    def read(self, text: bytes = b"") -> list[Reader]:
        """Have every model read the beginning of a text; see `Reader`."""
        return [model.read(text) for model in self.models]

    def distribution(self, readers: Sequence[Reader]) -> np.ndarray:
        """Return the mixed probability of each next byte and, last, of the end (float64 [257])."""
        found: np.ndarray = np.array(self.weights) @ np.stack([reader.distribution() for reader in readers])
        return found

    def score(self, text: str, *, done: Callable[[int], object] | None = None) -> ByteScore:
        """Compute the loss of a text for the mixture and for each of its models.

        Args:
            text: The text.
            done: Called with the number of bytes of each step.

        Raises:
            InputError: empty-text.
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
            with np.errstate(divide="ignore"):  # a byte that a model rules out has an infinite loss
                members -= np.log2(chances).sum(axis=1)
                mixed -= float(np.log2(np.array(self.weights) @ chances).sum())
            if done:
                done(len(part))
        return ByteScore(mixed, tuple(members.tolist()), len(data))

    def generate(self, prompt: str, *, most: int = 256, temperature: float = 0.0, seed: int = 0) -> Iterator[str]:
        """Continue a prompt and yield the text as soon as its characters are whole.

        The likeliest bytes are guessed as far as tokens are known, with what followed the same bytes earlier in the
        text. Every model reads the guess in one pass. The bytes are then chosen one by one by the exact probabilities,
        up to the first that was guessed wrong.

        Args:
            prompt: The beginning of the text.
            most: Bytes to write at most.
            temperature: Sampling temperature; 0 takes the most likely byte each time.
            seed: Seed of the sampling.

        Raises:
            UsageError: bad-temperature.
        """
        if not 0 <= temperature < float("inf"):
            raise UsageError("bad-temperature", f"temperature must be 0 or more, not {temperature}")
        random = np.random.default_rng(seed)
        text = prompt.encode("utf-8")
        readers = self.read(text)
        decoder = codecs.getincrementaldecoder("utf-8")()
        pending = b""  # what ends the text and has not been read
        while most > 0:
            ahead = (pending + self._guess(readers, text, pending))[:_AHEAD]
            for reader in readers:
                reader.look_ahead(ahead)
                reader.take(len(pending))
            for at in range(len(pending), len(ahead) + 1):
                byte = _choose(self.distribution(readers), temperature, random)
                if byte == END or not most:
                    return
                most -= 1
                text += bytes([byte])
                if piece := decoder.decode(bytes([byte])):
                    yield piece
                if ahead[at : at + 1] != bytes([byte]):
                    break
                for reader in readers:
                    reader.take()
            for reader in readers:
                reader.leave()
            pending = bytes([byte])

    def _guess(self, readers: Sequence[Reader], text: bytes, pending: bytes) -> bytes:
        """Guess what comes next: the likeliest bytes as far as tokens are known, and what came after them before."""
        guess = b""
        while len(guess) < _AHEAD:
            chances = np.array(self.weights) @ np.stack([reader.foresee(pending + guess) for reader in readers])
            byte = int(chances[:END].argmax())
            if chances[byte] < _LIKELY:
                break
            guess += bytes([byte])
        known = text + guess
        before = known.rfind(known[-_SAME:], 0, len(known) - 1) if len(known) > _SAME else -1
        return guess + known[before + _SAME :][:_AHEAD] if before >= 0 else guess


def _choose(chances: np.ndarray, temperature: float, random: np.random.Generator) -> int:
    if not temperature:
        return int(chances.argmax())
    logs = np.log(np.maximum(chances, 1e-300)) / temperature
    sharp = np.exp(logs - logs.max()) * (chances > 0)
    return int(random.choice(END + 1, p=sharp / sharp.sum()))
