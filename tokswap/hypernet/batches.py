"""What a training step works on: source tokens in the first stage, texts under a sampled tokenizer in the main stage.

Everything random follows from the seed and the step. Every process draws the whole batch and takes its share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tokswap.hypernet.base import Base
from tokswap.hypernet.sampling import Sampler, Texts
from tokswap.hypernet.settings import TrainSettings
from tokswap.hypernet.surface import Surface
from tokswap.tokenizer.vocabulary import BYTE_ALPHABET, Kind

_MOST_KEPT = 1 << 20
_MASKED = 0.15
"""Share of an encoder's tokens to predict, as in BERT (arXiv 1810.04805)."""
_HIDDEN, _SWAPPED = 0.8, 0.1
"""Share of these that the mask token replaces, and share that a random token does; the rest stays."""


@dataclass(frozen=True)
class Share:
    """The part of a batch that one process computes.

    Attributes:
        index: Number of the process, from 0.
        count: Number of processes.
    """

    index: int
    count: int

    def of(self, total: int) -> slice:
        """Return this process's part of a batch of `total`."""
        each = total // self.count
        return slice(self.index * each, (self.index + 1) * each)


@dataclass(frozen=True)
class IdentityBatch:
    """What one process does in a step of the first stage.

    Attributes:
        ids: Source tokens whose embeddings are to be reproduced, int64 [n].
        forms: Their surface forms, int32 [n, L].
    """

    ids: np.ndarray
    forms: np.ndarray


@dataclass(frozen=True)
class MainBatch:
    """What one process does in a step of the main stage.

    The candidates are the tokens whose embeddings are predicted, C of them.

    Attributes:
        pieces: Source ids of each candidate.
        ids: This process's texts, int64 [B, T]: positions of candidates, from C on the base model's special tokens, -1
            past the end of a text.
        labels: What the model is to predict at each place, int64 [B, T]: positions of candidates, -1 for nothing.
        predicted: Number of tokens that all texts of the step predict.
        predicted_bytes: Bytes of these tokens.
    """

    pieces: Sequence[Sequence[int]]
    ids: np.ndarray
    labels: np.ndarray
    predicted: int
    predicted_bytes: int


@dataclass(frozen=True)
class Corpus:
    """What the texts of a step come from, and its tokenizer.

    Attributes:
        texts: The texts.
        sampler: What samples tokenizers from them.
    """

    texts: Texts
    sampler: Sampler


@dataclass(frozen=True)
class Batches:
    """Draws the batches of a run.

    Steps take the corpora in turn. Each has texts of one corpus, and a tokenizer that is sampled from that alone.

    Attributes:
        settings: The settings of the run.
        base: The model that the hypernetwork is for.
        surface: What turns tokens into surface forms.
        corpora: The texts to train on.
        share: The process that asks.
    """

    settings: TrainSettings
    base: Base
    surface: Surface
    corpora: Sequence[Corpus]
    share: Share
    _pieces_of: dict[str, list[int]] = field(default_factory=dict, repr=False)

    def identity(self, step: int) -> IdentityBatch:
        """Return the batch of a step of the first stage."""
        settings = self.settings
        draw = np.random.default_rng([settings.seed, 1, step])
        ids = draw.choice(self.base.trained_ids, settings.identity_batch)
        chances, places = draw.random(len(ids)), draw.random(len(ids))
        mine = self.share.of(len(ids))
        drawn = zip(ids[mine].tolist(), chances[mine].tolist(), places[mine].tolist(), strict=True)
        pieces = [self._split(token, place) if chance < settings.split else [token] for token, chance, place in drawn]
        return IdentityBatch(ids[mine], self.surface.pack(pieces))

    def warm_up(self, step: int) -> None:
        """Count the texts that a run which starts at a step of the main stage has not seen."""
        for number, corpus in enumerate(self.corpora):
            first = -((number - step) // len(self.corpora))  # its turns before this step
            for turn in range(first, first + self.settings.queue - 1):
                corpus.sampler.push(corpus.texts.batch(turn, self.settings.batch))

    def main(self, step: int) -> MainBatch:
        """Return the batch of a step of the main stage. Steps must be asked for in order."""
        settings = self.settings
        turn, number = divmod(step, len(self.corpora))
        texts, sampler = self.corpora[number].texts, self.corpora[number].sampler
        sampler.push(texts.batch(turn + settings.queue - 1, settings.batch))
        tokenizer = sampler.sample(step)
        encoded = [ids[: settings.length] for ids in tokenizer.encode(texts.batch(turn, settings.batch))]
        candidates = self._candidates(encoded, len(tokenizer.tokens), step)
        place_of = np.full(len(tokenizer.tokens), -1)
        place_of[candidates] = np.arange(len(candidates))
        special = {token: len(candidates) + n for n, token in enumerate(self.base.special)}
        lead, tail = ([] if end is None else [special[end]] for end in (self.base.bos, self.base.eos))
        ids = _padded([lead + place_of[ids].tolist() + tail for ids in encoded])
        if self.base.mask is None:
            labels = np.pad(ids[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
        else:
            ids, labels = self._masked(ids, len(candidates), special[self.base.mask], step)
        length = np.array([len(tokenizer.tokens[token]) for token in candidates.tolist()])
        mine = self.share.of(len(ids))
        return MainBatch(
            pieces=[self._pieces(tokenizer.tokens[token]) for token in candidates.tolist()],
            ids=ids[mine],
            labels=labels[mine],
            predicted=int((labels >= 0).sum()),
            predicted_bytes=int(length[labels[labels >= 0]].sum()),
        )

    def _masked(self, ids: np.ndarray, count: int, mask: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Mask some candidates of texts. Return the texts, and what to predict at each place, int64 [B, T]."""
        draw = np.random.default_rng([self.settings.seed, 3, step])
        chosen = (draw.random(ids.shape) < _MASKED) & (ids >= 0) & (ids < count)
        chance, others = draw.random(ids.shape), draw.integers(count, size=ids.shape)
        shown = np.where(chance < _HIDDEN, mask, np.where(chance < _HIDDEN + _SWAPPED, others, ids))
        return np.where(chosen, shown, ids), np.where(chosen, ids, -1)

    def _candidates(self, encoded: Sequence[Sequence[int]], size: int, step: int) -> np.ndarray:
        """Return the tokens of the texts, and some others at random, int64 [C]."""
        used = np.unique(np.concatenate([np.array(ids, np.int64) for ids in encoded]))
        rest = np.setdiff1d(np.arange(size), used)
        draw = np.random.default_rng([self.settings.seed, 2, step])
        more = draw.choice(rest, min(self.settings.negatives, len(rest)), replace=False)
        return np.concatenate([used, more])

    def _split(self, token: int, place: float) -> list[int]:
        """Return the source ids of a token that is split in two. A token that cannot be split stays as it is."""
        vocabulary = self.base.tokenizer.vocabulary
        token_bytes = vocabulary.token_bytes[token]
        if len(token_bytes) < 2 or vocabulary.kind[token] != Kind.NORMAL:
            return [token]
        at = 1 + int(place * (len(token_bytes) - 1))
        return self.surface.tokenize(token_bytes[:at]) + self.surface.tokenize(token_bytes[at:])

    def _pieces(self, token: str) -> list[int]:
        """Return the source ids of a token in the byte alphabet, and keep them: most tokens come again."""
        if token not in self._pieces_of:
            if len(self._pieces_of) > _MOST_KEPT:
                self._pieces_of.clear()
            token_bytes = bytes(BYTE_ALPHABET[character] for character in token)
            self._pieces_of[token] = self.surface.tokenize(token_bytes)
        return self._pieces_of[token]


def _padded(texts: Sequence[Sequence[int]]) -> np.ndarray:
    padded = np.full((len(texts), max(len(ids) for ids in texts)), -1, np.int64)
    for row, ids in zip(padded, texts, strict=True):
        row[: len(ids)] = ids
    return padded
