"""Corpora: files of text, read in a stream and counted in tokens with the tokenizer's batch encoding on all cores."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from tokswap.distributed import LOCAL, Backend, Done
from tokswap.errors import InputError, UsageError
from tokswap.storage.documents import Parts, documents, find_files
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.trim.windows import Window, encode_windows, windows

SAMPLE_BYTES = 4 << 20
"""Size of the sample that is kept of a corpus, to verify the result with."""
_BATCH = 1 << 20
"""Characters that are tokenized at once."""


@dataclass(frozen=True)
class Corpus:
    """Files that are counted together.

    Attributes:
        name: How the user names them.
        files: The files, in order.
        minimum: How often a token must occur in them to be kept; None for the minimum of the run.
    """

    name: str
    files: tuple[Path, ...]
    minimum: int | None = None

    @property
    def nbytes(self) -> int:
        """Size of the files on disk."""
        return sum(file.stat().st_size for file in self.files)


@dataclass(frozen=True, eq=False)
class Counts:
    """How often each token occurs in a corpus, or its weight in a list of words.

    Attributes:
        name: Name of the corpus or list.
        counts: Occurrences (int64 [V]) or weights (float64 [V]).
        bytes: Size of the text, in bytes of UTF-8.
        minimum: As in `Corpus`.
        sample: Windows from all over the corpus, about `SAMPLE_BYTES`.
    """

    name: str
    counts: np.ndarray
    bytes: int
    minimum: int | None = None
    sample: tuple[Window, ...] = ()

    @property
    def is_text(self) -> bool:
        """Whether these are occurrences in a text, not the weights of a list of words."""
        return self.counts.dtype == np.int64

    @property
    def total(self) -> float:
        """Number of tokens of the corpus, or sum of the weights."""
        return float(self.counts.sum())


def find_corpus(spec: str | Path) -> Corpus:
    """Find the files of a corpus.

    Args:
        spec: "FILE", "FOLDER" or "PATTERN". "=N" at the end sets a minimum for this corpus.

    Raises:
        InputError: missing-corpus.
        UsageError: bad-minimum.
    """
    spec = str(spec)
    name, equals, number = spec.rpartition("=")
    minimum = None
    if not equals or os.path.lexists(spec):
        name = spec
    elif not number.isdecimal() or int(number) < 1:
        raise UsageError("bad-minimum", f"the minimum of a corpus must be at least 1, not {number!r}", "write FILE=N")
    else:
        minimum = int(number)
    files = find_files(name)
    if not files:
        hint = "give a file, a folder, or a pattern in quotes such as 'texts/*.txt'"
        empty = Path(name).expanduser().is_dir()
        message = f"the folder `{name}` holds no file" if empty else f"there is no corpus `{name}`"
        raise InputError("missing-corpus", message, hint)
    return Corpus(name, files, minimum)


def count(
    corpus: Corpus,
    tokenizer: Tokenizer,
    *,
    key: str = "text",
    backend: Backend = LOCAL,
    progress: Done = lambda nbytes: None,
) -> Counts:
    """Count the tokens of a corpus, as they are where each text is tokenized whole.

    This process reads the files, and the backend tokenizes them.

    Args:
        corpus: The files.
        tokenizer: The tokenizer to count with.
        key: Name of the text field in JSON lines and parquet files.
        backend: Where to tokenize.
        progress: Called with the number of bytes each time some text is counted.

    Raises:
        InputError: empty-corpus, bad-text, missing-field, missing-extra.
        ClusterError: what `Backend.map` raises.
    """
    counts = np.zeros(len(tokenizer.vocabulary), np.int64)
    sample = _Sample()
    size = 0
    batches = _read_ahead(_batches(windows(_texts(corpus, key), tokenizer), sample))
    for ids, found, nbytes in backend.map(_count_batch, batches, tokenizer, progress):
        counts[ids] += found
        size += nbytes
    return Counts(corpus.name, counts, size, minimum=corpus.minimum, sample=sample.checked(corpus))


def read_sample(corpus: Corpus, tokenizer: Tokenizer, key: str = "text") -> tuple[Window, ...]:
    """Return windows from all over a corpus.

    Args:
        corpus: The files.
        tokenizer: The tokenizer that will tokenize them.
        key: Name of the text field in JSON lines and parquet files.

    Raises:
        InputError: empty-corpus, bad-text, missing-field, missing-extra.
    """
    sample = _Sample()
    for window in windows(_texts(corpus, key), tokenizer):
        sample.add(window)
    return sample.checked(corpus)


@dataclass
class _Sample:
    """Every n-th window of a stream; n doubles whenever there are too many."""

    windows: list[Window] = field(default_factory=list)
    size: int = 0
    every: int = 1
    seen: int = 0

    def add(self, window: Window) -> None:
        if self.seen % self.every == 0 and window.text.strip():
            self.windows.append(window)
            self.size += len(window.text)
        self.seen += 1
        if self.size > SAMPLE_BYTES:
            self.windows = self.windows[::2]
            self.size = sum(len(window.text) for window in self.windows)
            self.every *= 2

    def checked(self, corpus: Corpus) -> tuple[Window, ...]:
        """Return the windows, or raise InputError empty-corpus if there are none."""
        if not self.windows:
            hint = "give files with some text in them"
            raise InputError("empty-corpus", "there is no text in this corpus", hint, corpus=corpus.name)
        return tuple(self.windows)


def _texts(corpus: Corpus, key: str) -> Parts:
    return chain.from_iterable(documents(file, key) for file in corpus.files)


def _count_batch(tokenizer: Tokenizer, batch: list[Window], done: Done) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the ids that occur in a batch, how often each does, and the bytes of its text."""
    ids = encode_windows(tokenizer, batch)
    counts = np.bincount(np.fromiter(chain.from_iterable(ids), np.int64))
    nbytes = len("".join(window.text for window in batch).encode("utf-8", "surrogatepass"))
    done(nbytes)
    found = np.flatnonzero(counts)  # the result may travel between machines, and a batch has few of all ids
    return found, counts[found], nbytes


def _read_ahead(batches: Iterator[list[Window]]) -> Iterator[list[Window]]:
    """Read the next batch while the last one is tokenized: the tokenizers library releases the GIL."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = reader.submit(next, batches, None)
            yield batch


def _batches(stream: Iterable[Window], sample: _Sample) -> Iterator[list[Window]]:
    batch: list[Window] = []
    size = 0
    for window in stream:
        sample.add(window)
        batch.append(window)
        size += len(window.text)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
