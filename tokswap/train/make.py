"""Makes tokenizers of several sizes from one text: each kind of tokens in its own way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from tokswap.errors import InputError
from tokswap.tokenizer.backend import Backend
from tokswap.tokenizer.families import BYTE_LEVEL, UNIGRAM, WORDPIECE
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.train.base import Base, spells_marks
from tokswap.train.options import TrainOptions
from tokswap.train.patterns import marked_words, sequence, without
from tokswap.train.superwords import train_superwords
from tokswap.train.text import Text, random_chunks
from tokswap.train.trainers import (
    Merges,
    alphabet_of,
    byte_symbols,
    splitter,
    train_bpe,
    train_unigram,
    train_wordpiece,
)

_BYTES = 256
"""Bytes of a string that `--binary` trains on."""
_WHITE = " ▁\n\r\t"
"""White space is never cut out of a text as a rare character."""
_MORE = 64
"""More tokens than needed to ask of a trainer that may give some that are there already."""


@dataclass(frozen=True)
class Maker:
    """Trains tokenizers.

    Attributes:
        base: What they take over.
        text: The text.
        options: What the user asked for.
        say: Called with the name of each stage.
    """

    base: Base
    text: Text
    options: TrainOptions
    say: Callable[[str], None] = lambda stage: None

    def make(self, size: int) -> Tokenizer:
        """Return a tokenizer.

        Args:
            size: Its number of ids, one of those that the options name.

        Raises:
            InputError: small-corpus, where the text does not give so many tokens.
            UsageError: bad-size.
        """
        self.base.room(size)
        if self.base.family == UNIGRAM:
            return self._unigram(size)
        if self.base.family == WORDPIECE:
            return self._wordpiece(size)
        if self.options.superwords:
            return self._superwords(size)
        return self._bpe(size, self._merges.pairs)

    @cached_property
    def _merges(self) -> Merges:
        """The merges of the largest vocabulary: those of a smaller one are the first of them."""
        largest = self.options.all_sizes()[-1]
        size = self._within(largest) if self.options.superwords else largest
        alphabet = self._alphabet(largest)
        self.say(f"training {size:,} ids")
        return train_bpe(self._words(), self._splitter(largest), self.base.room(size), alphabet)

    def _within(self, size: int) -> int:
        """Return how many ids of a vocabulary with superwords are trained within words."""
        return size - round((1 - self.options.word_share) * self.base.room(size))

    def _superwords(self, size: int) -> Tokenizer:
        within = self._within(size)
        first = self._bpe(within, self._merges.pairs)
        self.say(f"training {size - within:,} superwords")
        superwords = train_superwords(self.text.training, first, size - within)
        pairs = ((left, right) for left, right in first.spec["model"]["merges"])
        return self._bpe(size, chain(pairs, superwords))

    def _bpe(self, size: int, pairs: Iterable[tuple[str, str]]) -> Tokenizer:
        """Return the tokenizer of the first merges that give so many ids."""
        inside, most = self._inside, size - len(self.base.outside)
        tokens = dict.fromkeys([*inside, *self._alphabet(size)])
        taken = {*inside, *self.base.added}
        kept: list[list[str]] = []
        for left, right in pairs:
            whole = left + right
            if left not in tokens or right not in tokens or whole in taken:
                continue
            if whole not in tokens:
                if len(tokens) >= most:
                    break
                tokens[whole] = None
            kept.append([left, right])
        ids = self._numbered(tokens, size)
        return self.base.with_model({**self.base.tokenizer.spec["model"], "vocab": ids, "merges": kept}, ids)

    def _unigram(self, size: int) -> Tokenizer:
        model, alphabet = self.base.tokenizer.spec["model"], self._alphabet(size)
        self.say(f"training {size:,} ids")
        asked = self.base.room(size) + _MORE
        scores = dict(train_unigram(self._words(), self._splitter(size), asked, alphabet))
        scores = {model["vocab"][token][0]: model["vocab"][token][1] for token in self.base.inside} | {
            text: score for text, score in scores.items() if text not in self._inside
        }
        ids = self._numbered(scores, size)
        unknown = ids[model["vocab"][model["unk_id"]][0]] if model.get("unk_id") is not None else None
        vocab = [[text, scores[text]] for text in ids]
        return self.base.with_model({**model, "vocab": vocab, "unk_id": unknown}, ids)

    def _wordpiece(self, size: int) -> Tokenizer:
        model, alphabet = self.base.tokenizer.spec["model"], self._alphabet(size)
        self.say(f"training {size:,} ids")
        prefix = model.get("continuing_subword_prefix") or ""
        asked = self.base.room(size) + _MORE
        trained = train_wordpiece(self._words(), self._splitter(size), asked, alphabet, prefix)
        ids = self._numbered(dict.fromkeys([*self._inside, *trained]), size)
        return self.base.with_model({**model, "vocab": ids}, ids)

    @cached_property
    def _inside(self) -> list[str]:
        """The tokens of the model that are not trained."""
        return [self.base.tokenizer.vocabulary.text[token] for token in self.base.inside]

    def _numbered(self, tokens: Iterable[str], size: int) -> dict[str, int]:
        """Return the ids of the first tokens that a vocabulary has room for. Raises InputError small-corpus."""
        most = size - len(self.base.outside)
        ids = {text: n for n, text in zip(range(most), tokens, strict=False)}
        if len(ids) < most:
            raise InputError(
                "small-corpus",
                f"the text gives {size - most + len(ids):,} ids, not {size:,}: no other pair of tokens occurs twice",
                "give more text with --corpus, or a smaller --size",
            )
        return ids

    def _alphabet(self, size: int) -> tuple[str, ...]:
        """Return the characters that are tokens: all bytes, or no more than a share of the ids."""
        if self.base.family == BYTE_LEVEL:
            return byte_symbols()
        share = 6 if self.base.family == WORDPIECE else 2  # WordPiece has each character twice
        found = self._characters[: max(self.base.room(size) // share, 1)]
        return tuple(dict.fromkeys([*found, *self.base.unspelled, "▁"])) if spells_marks(self.base) else found

    @cached_property
    def _characters(self) -> tuple[str, ...]:
        self.say("counting characters")
        without = " ▁" if spells_marks(self.base) else _WHITE
        normalizer = splitter(self.base.tokenizer.spec.get("normalizer"), None)
        return alphabet_of(self.text.training(), normalizer, without)

    def _words(self) -> Iterator[str]:
        """Yield the strings to train on: pieces, which are then split into words, or chunks that cross words."""
        pieces = self.text.training()
        if self.options.binary:
            return (piece[at : at + _BYTES] for piece in pieces for at in range(0, len(piece), _BYTES))
        return random_chunks(pieces, self.options.seed) if self.options.supertokens else pieces

    def _splitter(self, size: int) -> Backend:
        """Return what normalizes and splits the strings to train on."""
        base, spec = self.base, self.base.tokenizer.spec
        if self.options.binary:
            return splitter(None, None)
        known = () if base.family == BYTE_LEVEL else (*self._alphabet(size), *_WHITE)
        parts = [without(base.added, byte_pieces=base.has_byte_pieces, characters=known)]
        if self.options.supertokens:
            parts.append(spec.get("pre_tokenizer"))
        else:
            parts += [base.words, marked_words(base.digits) if spells_marks(base) else None]
        return splitter(spec.get("normalizer"), sequence(parts))
