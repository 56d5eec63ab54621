"""The text of a training: pieces of a corpus in a stream, and a part of it that is held out."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tokswap.errors import InputError, UsageError
from tokswap.storage.documents import documents
from tokswap.tokenizer.vocabulary import byte_level_token
from tokswap.trim.corpora import Corpus, find_corpus

_PIECE = 16_384
"""Characters of a piece: the trainers keep a few hundred of them at a time, with an offset for every character."""
_EVERY = 20
"""Every so many pieces, one is held out."""
_MEASURED_BYTES = 16 << 20
"""Largest sample that a tokenizer is measured on, in characters."""
_CHUNKS = (4, 23)
"""Shortest and longest random chunk of TokenAdapt, in characters."""


@dataclass(frozen=True)
class Text:
    """What a tokenizer is trained and measured on.

    Attributes:
        corpora: The files to train on.
        held_out: The files to measure on; () for a part of `corpora`.
        field: Name of the text field in JSON lines and parquet files.
        binary: Whether the files are read as bytes; their pieces are then written in the byte alphabet.
    """

    corpora: tuple[Corpus, ...]
    held_out: tuple[Corpus, ...]
    field: str
    binary: bool

    @property
    def nbytes(self) -> int:
        """Size of the corpora on disk."""
        return sum(corpus.nbytes for corpus in self.corpora)

    def training(self) -> Iterator[str]:
        """Yield the pieces to train on. A piece ends after a line where it can."""
        if self.held_out:
            return self._pieces(self.corpora)
        return (piece for n, piece in enumerate(self._pieces(self.corpora)) if not _is_held_out(n))

    def measured(self) -> list[str]:
        """Return held-out pieces from all over the text; [] where the corpus is a single piece."""
        if self.held_out:
            return sample(self._pieces(self.held_out))
        return sample(piece for n, piece in enumerate(self._pieces(self.corpora)) if _is_held_out(n))

    def check(self) -> None:
        """Check that there is text to train on and, where files for it are named, to measure on.

        Raises:
            InputError: empty-corpus, bad-text, missing-field, missing-extra.
        """
        for corpora in (self.corpora, self.held_out):
            if corpora and not any(piece.strip() for piece in self._pieces(corpora)):
                names = ", ".join(corpus.name for corpus in corpora)
                hint = "give files with some text in them"
                raise InputError("empty-corpus", "there is no text in this corpus", hint, corpus=names)

    def _pieces(self, corpora: Sequence[Corpus]) -> Iterator[str]:
        files = chain.from_iterable(corpus.files for corpus in corpora)
        if self.binary:
            return chain.from_iterable(map(_byte_pieces, files))
        return chain.from_iterable(_text_pieces(documents(file, self.field)) for file in files)


def open_text(corpora: Sequence[str], held_out: Sequence[str], *, field: str, binary: bool) -> Text:
    """Find the files of a training.

    Args:
        corpora: Files, folders or patterns to train on.
        held_out: Those to measure on.
        field: Name of the text field in JSON lines and parquet files.
        binary: Whether to read the files as bytes.

    Raises:
        InputError: missing-corpus, empty-corpus, bad-text, missing-field, missing-extra.
        UsageError: missing-text, bad-minimum.
    """
    if not corpora:
        raise UsageError("missing-text", "a tokenizer is trained on text", "name it with --corpus")
    found, others = tuple(map(find_corpus, corpora)), tuple(map(find_corpus, held_out))
    if any(corpus.minimum is not None for corpus in (*found, *others)):
        raise UsageError("bad-minimum", "FILE=N is for trims: a training takes the whole text", "leave out the number")
    text = Text(found, others, field=field, binary=binary)
    text.check()
    return text


def sample(pieces: Iterable[str]) -> list[str]:
    """Return every n-th piece of a stream, as many as fit into a measurement."""
    kept: list[str] = []
    every, size = 1, 0
    for n, piece in enumerate(pieces):
        if n % every:
            continue
        kept.append(piece)
        size += len(piece)
        if size > _MEASURED_BYTES:
            kept, every = kept[::2], every * 2
            size = sum(map(len, kept))
    return kept


def random_chunks(pieces: Iterable[str], seed: int) -> Iterator[str]:
    """Cut pieces into chunks of random length, as TokenAdapt does.

    Args:
        pieces: The text.
        seed: Seed of the lengths; the same for every pass over the text.

    Reference: arXiv 2505.09738
    """
    draw = random.Random(seed)
    for piece in pieces:
        at = 0
        while at < len(piece):
            end = at + draw.randint(*_CHUNKS)
            yield piece[at:end]
            at = end


def _is_held_out(number: int) -> bool:
    return number % _EVERY == _EVERY - 1


def _text_pieces(parts: Iterable[tuple[str, bool]]) -> Iterator[str]:
    text = ""
    for part, is_last in parts:
        text, at = text + part, 0
        while len(text) - at > _PIECE or (is_last and at < len(text)):
            line_end = text.rfind("\n", at, at + _PIECE) + 1
            end = line_end if line_end > at and len(text) - at > _PIECE else at + _PIECE
            yield text[at:end]
            at = end
        text = text[at:]


def _byte_pieces(file: Path) -> Iterator[str]:
    try:
        with open(file, "rb") as stream:
            while data := stream.read(_PIECE):
                yield byte_level_token(data)
    except OSError as error:
        raise InputError("bad-text", f"this file cannot be read: {error}", file=file) from error
