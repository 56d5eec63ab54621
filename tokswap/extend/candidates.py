"""Candidates from a corpus: pairs of neighbouring tokens, joined in the order of what they save."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from tokswap.errors import InputError
from tokswap.storage.documents import documents
from tokswap.tokenizer.backend import trained_merges
from tokswap.tokenizer.families import SENTENCEPIECE, UNIGRAM
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind
from tokswap.trim.corpora import find_corpus
from tokswap.trim.windows import Window, windows

_BATCH = 64
"""Windows that are tokenized at once."""
_RUN, _HELD_OUT = 100, 10
"""Words of a run; every n-th run is held out."""
_FIRST = 0x20000
"""The character that stands for id 0 while merges are trained. No white space and no surrogate comes after it."""


@dataclass(frozen=True)
class Words:
    """The words of a corpus: stretches of tokens that a new token may join.

    Attributes:
        used: Word, one character for each token -> how often it occurs in the part that tokens are chosen by.
        held_out: The same for the part that is held out.
        bytes: Size of both parts, in bytes of UTF-8.
        sample: Some of the texts.
    """

    used: Mapping[str, int]
    held_out: Mapping[str, int]
    bytes: tuple[int, int]
    sample: tuple[str, ...]


def read_words(specs: Sequence[str | Path], tokenizer: Tokenizer, key: str = "text") -> Words:
    """Tokenize a corpus and count its words.

    Args:
        specs: Files, folders or patterns.
        tokenizer: The tokenizer.
        key: Name of the text field in JSON lines and parquet files.

    Raises:
        InputError: missing-corpus, empty-corpus, bad-text, missing-field, missing-extra.
    """
    parts: tuple[Counter[str], Counter[str]] = Counter(), Counter()
    sample: list[str] = []
    sizes, number = [0, 0], 0
    token_bytes = tokenizer.vocabulary.token_bytes
    for spec in specs:
        corpus = find_corpus(spec)
        texts = chain.from_iterable(documents(file, key) for file in corpus.files)
        stream = iter(windows(texts, tokenizer))
        seen = number
        while batch := list(islice(stream, _BATCH)):
            sample += [window.text[:2000] for window in batch[:4]][: max(0, 200 - len(sample))]
            for word in _words(batch, tokenizer):
                side = int(number // _RUN % _HELD_OUT == _HELD_OUT - 1)
                number += 1
                parts[side][word] += 1
                sizes[side] += sum(len(token_bytes[ord(character) - _FIRST]) for character in word)
        if number == seen:
            hint = "give files with some text in them"
            raise InputError("empty-corpus", "there is no text in this corpus", hint, corpus=corpus.name)
    return Words(parts[0], parts[1], (sizes[0], sizes[1]), sample=tuple(sample))


def _words(batch: Sequence[Window], tokenizer: Tokenizer) -> Iterator[str]:
    """Yield the words of some windows, one character for each token."""
    backend, vocabulary = tokenizer.backend, tokenizer.vocabulary
    found = backend.encode_batch([window.whole for window in batch], add_special_tokens=False)
    skipped = [len(row) for row in tokenizer.encode_batch([window.before for window in batch])]
    text = (vocabulary.kind == Kind.NORMAL).tolist()
    splits = tokenizer.family in (SENTENCEPIECE, UNIGRAM)
    for encoding, start in zip(found, skipped, strict=True):
        word: list[str] = []
        last, place = b"", None
        for token, at in zip(encoding.ids[start:], encoding.word_ids[start:], strict=True):
            token_bytes = vocabulary.token_bytes[token]
            joins = at == place and at is not None and not (splits and _between_words(last, token_bytes))
            if word and not (joins and text[token]):
                yield "".join(word)
                word = []
            if text[token]:
                word.append(chr(_FIRST + token))
            last, place = token_bytes if text[token] else b"", at
        if word:
            yield "".join(word)


def _between_words(left: bytes, right: bytes) -> bool:
    """Whether a word ends between two tokens of a tokenizer that does not split texts itself.

    A word ends before a space, between a digit and anything, and between letters and other characters.
    """
    if right.startswith(b" "):
        return not (left.isspace() and right.isspace())
    a, b = left.decode("utf-8", "ignore")[-1:], right.decode("utf-8", "ignore")[:1]
    return a.isdigit() or b.isdigit() or (a.isalpha() != b.isalpha() and not a.isspace())


def candidates(words: Words, tokenizer: Tokenizer, count: int) -> list[bytes]:
    """Return new tokens in the order of a BPE training on the words. None is white space alone.

    Args:
        words: The words of the corpus.
        tokenizer: The tokenizer.
        count: How many; there may be fewer.
    """
    vocabulary = tokenizer.vocabulary
    found: dict[bytes, None] = {}
    for merged in trained_merges(words.used, count, Path(tokenizer.path)):
        token = b"".join(vocabulary.token_bytes[ord(character) - _FIRST] for character in merged)
        if token not in vocabulary.id_of and not token.isspace():
            found.setdefault(token)
    return list(found)


def token_bytes_of(words: Mapping[str, int], tokenizer: Tokenizer) -> Counter[bytes]:
    """Return the bytes of each word, and how often it occurs."""
    token_bytes, found = tokenizer.vocabulary.token_bytes, Counter[bytes]()
    for word, count in words.items():
        found[b"".join(token_bytes[ord(character) - _FIRST] for character in word)] += count
    return found
