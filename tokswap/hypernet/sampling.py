"""Random tokenizers for training: a Unigram vocabulary of substrings of recent text, with noise on their frequencies.

Everything is decided by the texts, the seed and the step, in whatever order the texts were counted: each process of a
distributed run, and a run that goes on after a kill, draws the same tokenizers.
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
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import BYTE_ALPHABET

LONGEST = 15
"""Bytes of the longest token."""
_FIXED = (
    *BYTE_ALPHABET,
    *("Ġ" * n for n in range(2, LONGEST + 2)),
    *("Ċ" * n for n in range(2, 5)),
    *("ĉ" * n for n in range(2, 5)),
)
"""In every vocabulary: all bytes, and runs of spaces, line ends and tabs, in the byte alphabet."""
SMALLEST = len(_FIXED)
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


@dataclass(frozen=True)
class SampledTokenizer:
    """A vocabulary for one step: tokens in the byte alphabet, the likeliest first, and their Unigram scores."""

    tokens: Sequence[str]
    scores: np.ndarray

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Cut texts into indices of `tokens`; pieces never cross the pretokens of GPT-2's pattern."""
        vocab = [[token, score] for token, score in zip(self.tokens, self.scores.tolist(), strict=True)]
        backend = _backend({"type": "Unigram", "unk_id": 0, "byte_fallback": False, "vocab": vocab})
        return [list(encoding.ids) for encoding in backend.encode_batch_fast(list(texts), add_special_tokens=False)]


@dataclass
class Sampler:
    """Counts the substrings of the latest texts and draws vocabularies from them.

    size: tokens of a vocabulary. kept: how many pushes are remembered. noise: (median, spread) of the log-normal
    deviation of the noise that is added to the weights, which are counts times length and add up to one.
    """

    size: int
    kept: int = 64
    noise: tuple[float, float] = (1e-5, 4.0)
    seed: int = 0
    _slot_of: dict[str, int] = field(default_factory=dict, repr=False)
    _queue: deque[tuple[np.ndarray, np.ndarray]] = field(default_factory=deque, repr=False)

    def __post_init__(self) -> None:
        self._texts: list[str] = []
        self._count, self._id = np.zeros(0, np.int64), np.zeros(0, np.uint64)  # of each slot
        self._split = _backend({"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0]]}).pre_tokenizer

    def push(self, texts: Sequence[str]) -> None:
        """Count some texts; those of the oldest push are forgotten where there are too many."""
        words = Counter(word for text in texts for word, _ in self._split.pre_tokenize_str(text))
        found: Counter[str] = Counter()
        for word, count in words.items():
            for begin in range(len(word)):
                for end in range(begin + 1, min(begin + LONGEST, len(word)) + 1):
                    found[word[begin:end]] += count
        slot_of = self._slot_of
        new = [part for part in found if part not in slot_of]
        slot_of.update(zip(new, range(len(slot_of), len(slot_of) + len(new)), strict=True))
        self._texts += new
        self._count = np.concatenate([self._count, np.zeros(len(new), np.int64)])
        ids = (zlib.crc32(part.encode()) | len(part) << 32 for part in new)
        self._id = np.concatenate([self._id, np.fromiter(ids, np.uint64, len(new))])
        slots = np.fromiter((slot_of[part] for part in found), np.int64, len(found))
        counts = np.fromiter(found.values(), np.int64, len(found))
        self._count[slots] += counts
        self._queue.append((slots, counts))
        if len(self._queue) > self.kept:
            slots, counts = self._queue.popleft()
            self._count[slots] -= counts
        if np.count_nonzero(self._count) < len(slot_of) // 2:
            self._compact()

    def sample(self, step: int) -> SampledTokenizer:
        """Draw the vocabulary of a step."""
        live = np.flatnonzero(self._count)
        weight: Any = self._count[live] * (self._id[live] >> np.uint64(32)).astype(np.float64)
        weight = weight / max(float(weight.sum()), 1.0)
        draw = np.random.default_rng([self.seed, step])
        deviation = self.noise[0] * np.exp(self.noise[1] * draw.standard_normal())
        weight += deviation * _normal(self._id[live], int(draw.integers(1 << 62)))
        best = np.argsort(-weight)[: self.size - SMALLEST]
        score = np.log(np.maximum(weight[best], 1e-12)).tolist()
        chosen = {self._texts[slot]: value for slot, value in zip(live[best].tolist(), score, strict=True)}
        # Every byte is there, so that any text can be cut; one that was not drawn costs more than what was.
        least = min(chosen.values(), default=0.0) - 1.0
        for name in _FIXED:
            chosen.setdefault(name, least)
        ranked = sorted(chosen.items(), key=lambda item: (-item[1], item[0]))
        return SampledTokenizer([name for name, _ in ranked], np.array([value for _, value in ranked]))

    def _compact(self) -> None:
        """Forget the substrings that no remembered text has."""
        live = np.flatnonzero(self._count)
        new_of = np.full(len(self._count), -1, np.int64)
        new_of[live] = np.arange(len(live))
        self._texts = [self._texts[slot] for slot in live.tolist()]
        self._slot_of = {part: slot for slot, part in enumerate(self._texts)}
        self._count, self._id = self._count[live], self._id[live]
        self._queue = deque((new_of[slots], counts) for slots, counts in self._queue)


@dataclass(frozen=True)
class Texts:
    """Pieces of text in an order of their own for every epoch. Raises InputError: bad-text, empty-text."""

    pieces: Sequence[str]
    seed: int = 0

    @classmethod
    def read(cls, paths: Sequence[Path], characters: int, seed: int) -> Texts:
        """Cut files into pieces of at most some characters, at line ends where there are any."""
        pieces = []
        for path in paths:
            try:
                text = path.read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InputError("bad-text", f"cannot read this text: {error}", "give UTF-8 text", file=path) from error
            pieces += [piece for piece in _cut(text, characters) if piece.strip()]
        if not pieces:
            raise InputError("empty-text", "there is no text to train on", "give files with some text in them")
        return cls(pieces, seed)

    def batch(self, step: int, size: int) -> list[str]:
        """Return the texts of a step; each text comes once an epoch."""
        places = np.arange(step * size, (step + 1) * size)
        orders = {epoch: self._order(epoch) for epoch in np.unique(places // len(self.pieces)).tolist()}
        return [self.pieces[orders[place // len(self.pieces)][place % len(self.pieces)]] for place in places.tolist()]

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.pieces))


def _cut(text: str, characters: int) -> Iterator[str]:
    at = 0
    while at < len(text):
        end = at + characters
        line_end = text.rfind("\n", at + characters // 2, end)
        end = line_end + 1 if line_end >= 0 and end < len(text) else end
        yield text[at:end]
        at = end


def _normal(ids: np.ndarray, key: int) -> np.ndarray:
    """Return a standard normal number for each id, decided by it and the key alone."""
    with np.errstate(over="ignore"):
        low = _mixed(ids ^ np.uint64(key))
        high = _mixed(low + np.uint64(0x9E3779B97F4A7C15))
    first, second = ((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53 for bits in (low, high))
    result: np.ndarray = np.sqrt(-2.0 * np.log1p(-first)) * np.cos(2.0 * np.pi * second)
    return result


def _mixed(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed


def _backend(model: dict[str, Any]) -> Any:
    spec = {"version": "1.0", "added_tokens": [], "pre_tokenizer": _BYTE_LEVEL, "decoder": _BYTE_LEVEL, "model": model}
    return Tokenizer(Path("sampled tokenizer"), spec, {}, {}).backend
