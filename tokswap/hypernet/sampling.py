"""Random tokenizers for training: Unigram vocabularies of substrings of recent texts, with noise on their frequencies.

The texts, the seed and the step decide everything. The order in which texts are counted does not matter. So all
processes of a distributed run sample the same tokenizers, and so does a run that resumes after a kill.
"""

from __future__ import annotations

import zlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.errors import InputError
from tokswap.storage.documents import whole_documents
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import BYTE_ALPHABET

LONGEST = 15
"""Most bytes of a token."""
_FIXED = (
    *BYTE_ALPHABET,
    *("Ġ" * n for n in range(2, LONGEST + 2)),
    *("Ċ" * n for n in range(2, 5)),
    *("ĉ" * n for n in range(2, 5)),
)
"""Tokens of every vocabulary in the byte alphabet: all bytes, and runs of spaces, line ends and tabs."""
SMALLEST = len(_FIXED)
"""Tokens of the smallest vocabulary."""
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


@dataclass(frozen=True)
class SampledTokenizer:
    """The tokenizer of one step.

    Attributes:
        tokens: Its tokens in the byte alphabet, the likeliest first.
        scores: Their Unigram scores, float64 [C].
    """

    tokens: Sequence[str]
    scores: np.ndarray

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize texts into positions of `tokens`. Tokens never cross the words of GPT-2's pattern."""
        vocab = [[token, score] for token, score in zip(self.tokens, self.scores.tolist(), strict=True)]
        backend = _backend({"type": "Unigram", "unk_id": 0, "byte_fallback": False, "vocab": vocab})
        return [list(encoding.ids) for encoding in backend.encode_batch_fast(list(texts), add_special_tokens=False)]


@dataclass
class Sampler:
    """Counts the substrings of the latest texts and samples tokenizers from them.

    The weight of a substring is its count times its length; all weights add up to 1. Noise is added to them.

    Attributes:
        size: Tokens of a tokenizer.
        kept: Number of pushes that are remembered.
        noise: Median and spread of the standard deviation of the noise, which is log-normal.
        seed: Seed of the noise.
    """

    size: int
    kept: int = 64
    noise: tuple[float, float] = (1e-5, 4.0)
    seed: int = 0
    _slot_of: dict[str, int] = field(default_factory=dict, repr=False)
    _queue: deque[tuple[np.ndarray, np.ndarray]] = field(default_factory=deque, repr=False)

    def __post_init__(self) -> None:
        self._texts: list[str] = []
        # One entry per slot: how often the substring occurs, and its CRC32 with its length in the upper half.
        self._count, self._id = np.zeros(0, np.int64), np.zeros(0, np.uint64)
        self._split = _backend({"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0]]}).pre_tokenizer

    def push(self, texts: Sequence[str]) -> None:
        """Count the substrings of some texts, and forget the oldest push where there are more than `kept`."""
        found = self._substrings(texts)
        self._add_slots([part for part in found if part not in self._slot_of])
        slots = np.fromiter((self._slot_of[part] for part in found), np.int64, len(found))
        counts = np.fromiter(found.values(), np.int64, len(found))
        self._count[slots] += counts
        self._queue.append((slots, counts))
        if len(self._queue) > self.kept:
            slots, counts = self._queue.popleft()
            self._count[slots] -= counts
        if np.count_nonzero(self._count) < len(self._slot_of) // 2:
            self._compact()

    def _substrings(self, texts: Sequence[str]) -> Counter[str]:
        words = Counter(word for text in texts for word, _ in self._split.pre_tokenize_str(text))
        found: Counter[str] = Counter()
        for word, count in words.items():
            for begin in range(len(word)):
                for end in range(begin + 1, min(begin + LONGEST, len(word)) + 1):
                    found[word[begin:end]] += count
        return found

    def _add_slots(self, new: Sequence[str]) -> None:
        first = len(self._slot_of)
        self._slot_of.update(zip(new, range(first, first + len(new)), strict=True))
        self._texts += new
        self._count = np.concatenate([self._count, np.zeros(len(new), np.int64)])
        ids = (zlib.crc32(part.encode()) | len(part) << 32 for part in new)
        self._id = np.concatenate([self._id, np.fromiter(ids, np.uint64, len(new))])

    def sample(self, step: int) -> SampledTokenizer:
        """Sample the tokenizer of a step."""
        live = np.flatnonzero(self._count)
        weight: Any = self._count[live] * (self._id[live] >> np.uint64(32)).astype(np.float64)
        weight = weight / max(float(weight.sum()), 1.0)
        draw = np.random.default_rng([self.seed, step])
        deviation = self.noise[0] * np.exp(self.noise[1] * draw.standard_normal())
        weight += deviation * _normal(self._id[live], int(draw.integers(1 << 62)))
        best = np.argsort(-weight)[: self.size - SMALLEST]
        score = np.log(np.maximum(weight[best], 1e-12)).tolist()
        chosen = {self._texts[slot]: value for slot, value in zip(live[best].tolist(), score, strict=True)}
        # With every byte in the vocabulary any text can be tokenized. Bytes that were not drawn come last.
        least = min(chosen.values(), default=0.0) - 1.0
        for name in _FIXED:
            chosen.setdefault(name, least)
        ranked = sorted(chosen.items(), key=lambda item: (-item[1], item[0]))
        return SampledTokenizer([name for name, _ in ranked], np.array([value for _, value in ranked]))

    def _compact(self) -> None:
        """Drop the substrings that no remembered text has."""
        live = np.flatnonzero(self._count)
        new_of = np.full(len(self._count), -1, np.int64)
        new_of[live] = np.arange(len(live))
        self._texts = [self._texts[slot] for slot in live.tolist()]
        self._slot_of = {part: slot for slot, part in enumerate(self._texts)}
        self._count, self._id = self._count[live], self._id[live]
        self._queue = deque((new_of[slots], counts) for slots, counts in self._queue)


@dataclass(frozen=True)
class Texts:
    """Texts to train on, in a new order for every epoch.

    Attributes:
        pieces: The texts.
        seed: Seed of the orders.
    """

    pieces: Sequence[str]
    seed: int = 0

    @classmethod
    def read(cls, names: Sequence[str | Path], characters: int, seed: int, *, key: str = "text") -> Texts:
        """Read files and split them into texts, at line ends where possible.

        Args:
            names: Files, folders or patterns: plain text, JSON lines, parquet, also packed as .gz.
            characters: Most characters of a text.
            seed: Seed of the orders.
            key: Name of the text field in JSON lines and parquet files.

        Raises:
            InputError: bad-text, empty-text, missing-field, missing-extra.
        """
        whole = (text for name in names for text in whole_documents(name, key))
        pieces = [piece for text in whole for piece in _split(text, characters) if piece.strip()]
        if not pieces:
            where = ", ".join(map(str, names))
            raise InputError("empty-text", f"there is no text to train on in {where}", "give files with some text")
        return cls(pieces, seed)

    def batch(self, step: int, size: int) -> list[str]:
        """Return the texts of a step. Each text comes once per epoch."""
        places = np.arange(step * size, (step + 1) * size)
        orders = {epoch: self._order(epoch) for epoch in np.unique(places // len(self.pieces)).tolist()}
        return [self.pieces[orders[place // len(self.pieces)][place % len(self.pieces)]] for place in places.tolist()]

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.pieces))


def _split(text: str, characters: int) -> Iterator[str]:
    at = 0
    while at < len(text):
        end = at + characters
        line_end = text.rfind("\n", at + characters // 2, end)
        end = line_end + 1 if line_end >= 0 and end < len(text) else end
        yield text[at:end]
        at = end


def _normal(ids: np.ndarray, key: int) -> np.ndarray:
    """Return a standard normal number for each id, which depends on the id and the key alone."""
    with np.errstate(over="ignore"):
        low = _mixed(ids ^ np.uint64(key))
        high = _mixed(low + np.uint64(0x9E3779B97F4A7C15))
    first, second = ((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53 for bits in (low, high))
    result: np.ndarray = np.sqrt(-2.0 * np.log1p(-first)) * np.cos(2.0 * np.pi * second)
    return result


def _mixed(x: np.ndarray) -> np.ndarray:
    """Mix the bits of numbers as SplitMix64 does."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed


def _backend(model: dict[str, Any]) -> Any:
    spec = {"version": "1.0", "added_tokens": [], "pre_tokenizer": _BYTE_LEVEL, "decoder": _BYTE_LEVEL, "model": model}
    return Tokenizer(path=Path("sampled tokenizer"), spec=spec, config={}, files={}).backend
