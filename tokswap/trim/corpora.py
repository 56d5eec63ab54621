"""Corpora: files of text, read in a stream and counted in tokens with the tokenizer's batch encoding on all cores."""

from __future__ import annotations

import codecs
import glob
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np

from tokswap.distributed import LOCAL, Backend
from tokswap.errors import InputError, UsageError
from tokswap.tokenizer.tokenizer import Tokenizer

SAMPLE_BYTES = 4 << 20
"""Text that is kept of a corpus, for the verification of the result."""
_READ_BYTES = 1 << 20
_LINE_BYTES = 64 << 20
_BLOCK = 4096
_BATCH = 1 << 20


@dataclass(frozen=True)
class Corpus:
    """Files that are counted together. minimum: how often a token must occur in them, None for the run's own."""

    name: str
    files: tuple[Path, ...]
    minimum: int | None = None

    @property
    def nbytes(self) -> int:
        """Size of the files, packed as they are."""
        return sum(file.stat().st_size for file in self.files)


@dataclass(frozen=True, eq=False)
class Counts:
    """How often each token occurs in a corpus, or weighs in a word list.

    counts: int64[V] or float64[V]. bytes: of text. sample: blocks of the text from all over it, about SAMPLE_BYTES.
    """

    name: str
    counts: np.ndarray
    bytes: int
    minimum: int | None = None
    sample: tuple[str, ...] = ()

    @property
    def is_text(self) -> bool:
        """Whether these are numbers of occurrences, and not weights of a list of words."""
        return self.counts.dtype == np.int64

    @property
    def total(self) -> float:
        """All tokens of the corpus."""
        return float(self.counts.sum())


def find_corpus(spec: str) -> Corpus:
    """Read "FILE", "FOLDER" or "PATTERN", with "=N" behind it for a minimum of its own.

    Raises InputError missing-corpus, UsageError bad-minimum.
    """
    name, equals, number = spec.rpartition("=")
    minimum = None
    if not equals or os.path.lexists(spec):
        name = spec
    elif not number.isdecimal() or int(number) < 1:
        raise UsageError("bad-minimum", f"the minimum of a corpus is a number from 1, not {number!r}", "write FILE=N")
    else:
        minimum = int(number)
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    elif path.exists():
        files = [path]
    else:
        files = sorted(Path(found) for found in glob.glob(str(path), recursive=True) if os.path.isfile(found))
    if not files:
        hint = "give a file, a folder, or a pattern in quotes such as 'texts/*.txt'"
        raise InputError("missing-corpus", f"there is no corpus `{name}`", hint)
    return Corpus(name, tuple(files), minimum)


def count(
    corpus: Corpus,
    tokenizer: Tokenizer,
    *,
    key: str = "text",
    backend: Backend = LOCAL,
    progress: Callable[[int], object] = lambda n: None,
) -> Counts:
    """Count the tokens of a corpus. The files are read here, and cut into tokens wherever the backend does its work.

    key: where the text is in JSON lines and parquet files. progress: told the bytes of text that have been counted.
    Raises InputError: empty-corpus, bad-text, missing-extra, missing-field; and what `backend.map` raises.
    """
    counts = np.zeros(len(tokenizer.vocabulary), np.int64)
    sample = _Sample()
    size = 0
    stream = chain.from_iterable(map(blocks, chain.from_iterable(_texts(file, key) for file in corpus.files)))
    batches = _read_ahead(_batches(stream, sample))
    for ids, found, nbytes in backend.map(_count_batch, batches, tokenizer, progress):
        counts[ids] += found
        size += nbytes
    return Counts(corpus.name, counts, size, corpus.minimum, sample.checked(corpus))


def _count_batch(
    tokenizer: Tokenizer, batch: list[str], done: Callable[[int], object]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the ids that occur in a batch, how often each does, and the bytes of its text."""
    ids = tokenizer.encode_batch(batch)
    counts = np.bincount(np.fromiter(chain.from_iterable(ids), np.int64))
    nbytes = len("".join(batch).encode("utf-8", "surrogatepass"))
    done(nbytes)
    found = np.flatnonzero(counts)  # a batch has few of all ids, and this may have to travel
    return found, counts[found], nbytes


def read_sample(corpus: Corpus, key: str = "text") -> tuple[str, ...]:
    """Return blocks of text from all over a corpus. Raises what `count` raises."""
    sample = _Sample()
    for text in chain.from_iterable(_texts(file, key) for file in corpus.files):
        for block in blocks(text):
            sample.add(block)
    return sample.checked(corpus)


@dataclass
class _Sample:
    """Every n-th block of a stream; n doubles whenever there are too many."""

    blocks: list[str] = field(default_factory=list)
    size: int = 0
    every: int = 1
    seen: int = 0

    def add(self, block: str) -> None:
        if self.seen % self.every == 0 and block.strip():
            self.blocks.append(block)
            self.size += len(block)
        self.seen += 1
        if self.size > SAMPLE_BYTES:
            self.blocks = self.blocks[::2]
            self.size = sum(map(len, self.blocks))
            self.every *= 2

    def checked(self, corpus: Corpus) -> tuple[str, ...]:
        """Return the blocks. Raises InputError empty-corpus where there is nothing but white space."""
        if not self.blocks:
            hint = "give files with some text in them"
            raise InputError("empty-corpus", "there is no text in this corpus", hint, corpus=corpus.name)
        return tuple(self.blocks)


def _read_ahead(batches: Iterator[list[str]]) -> Iterator[list[str]]:
    """Read the next batch while the last one is worked on: the tokenizers library lets go of Python meanwhile."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = reader.submit(next, batches, None)
            yield batch


def _batches(stream: Iterable[str], sample: _Sample) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for block in stream:
        sample.add(block)
        batch.append(block)
        size += len(block)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def blocks(text: str, size: int = _BLOCK) -> Iterator[str]:
    """Cut a text into blocks of at most `size` characters that can be encoded side by side: after newlines, else before a space, else anywhere."""
    start = 0
    while start < len(text):
        end = min(start + size, len(text))
        if end < len(text):
            newline = text.rfind("\n", start, end) + 1
            space = text.rfind(" ", start + 1, end)
            # A run of newlines is one token or a few: it stays whole where it ends in reach.
            end = newline if newline > start and newline < len(text) and text[newline] != "\n" else max(space, 0) or end
        yield text[start:end]
        start = end


def _texts(path: Path, key: str) -> Iterator[str]:
    """Yield the texts of a file: its documents, or pieces of some megabytes that end with a line."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        yield from _parquet(path, key)
        return
    try:
        with open(path, "rb") as plain, _unpacked(path, plain) as file:
            if name.endswith((".jsonl", ".ndjson")):
                yield from _json_lines(path, file, key)
            else:
                yield from _plain(path, file)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError("bad-text", f"this file cannot be read: {error}", file=path) from error


def _unpacked(path: Path, file: IO[bytes]) -> IO[bytes]:
    return gzip.open(file) if path.name.endswith(".gz") else file  # type: ignore[return-value]


def _plain(path: Path, file: IO[bytes]) -> Iterator[str]:
    decode = codecs.getincrementaldecoder("utf-8-sig")().decode
    rest, read = "", 0
    while True:
        data = file.read(_READ_BYTES)
        try:
            rest += decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise _not_utf8(path, error, f"after byte {read:,}") from error
        read += len(data)
        cut = rest.rfind("\n") + 1 if data and len(rest) < 4 * _READ_BYTES else len(rest)
        if cut:
            yield rest[:cut]
        rest = rest[cut:]
        if not data:
            return


def _json_lines(path: Path, file: IO[bytes], key: str) -> Iterator[str]:
    for number, line in enumerate(iter(lambda: file.readline(_LINE_BYTES + 1), b""), 1):
        if len(line) > _LINE_BYTES:  # a packed file of a few kB can hold a line that fills the memory
            raise InputError("bad-text", f"line {number:,} is longer than {_LINE_BYTES:,} bytes", file=path)
        if not line.strip():
            continue
        try:
            value: Any = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise _not_utf8(path, error, f"in line {number:,}") from error
        except (ValueError, RecursionError) as error:
            raise InputError("bad-text", f"line {number:,} is no JSON: {error}", file=path) from error
        text = value if isinstance(value, str) else value.get(key) if isinstance(value, dict) else None
        if not isinstance(text, str):
            raise _no_field(path, key, f"line {number:,}", list(value) if isinstance(value, dict) else [])
        yield text.encode("utf-8", "replace").decode()  # JSON can spell half a surrogate pair; no tokenizer takes it


def _parquet(path: Path, key: str) -> Iterator[str]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        hint = "pip install 'tokswap[parquet]'"
        raise InputError("missing-extra", "parquet files need pyarrow", hint, file=path) from error
    try:
        with ParquetFile(path) as file:
            if key not in file.schema_arrow.names:
                raise _no_field(path, key, "this file", file.schema_arrow.names)
            for batch in file.iter_batches(columns=[key], batch_size=1024):
                yield from (text for text in batch.column(0).to_pylist() if isinstance(text, str))
    except (ArrowException, OSError, ValueError) as error:
        raise InputError("bad-text", f"this parquet file cannot be read: {error}", file=path) from error


def _not_utf8(path: Path, error: UnicodeDecodeError, place: str) -> InputError:
    hint = "convert it, for example with `iconv -f ENCODING -t UTF-8`"
    return InputError("bad-text", f"this file is not UTF-8: {error.reason} {place}", hint, file=path)


def _no_field(path: Path, key: str, place: str, names: list[str]) -> InputError:
    known = f"; it has {', '.join(f'`{name}`' for name in names[:10])}" if names else ""
    hint = "name the field that holds the text with --field"
    return InputError("missing-field", f"{place} has no text in `{key}`{known}", hint, file=path)
