"""The trainers of the tokenizers library: BPE, Unigram and WordPiece, on pieces of text in a stream.

The trainers of the library split text, count the words and learn tokens from the counts. What they need of a tokenizer
is its normalizer and its pre-tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.tokenizer.backend import Backend, library_errors, make_backend
from tokswap.tokenizer.vocabulary import BYTE_ALPHABET

_TWICE = 2
"""How often a pair must occur to be merged."""
_COVERED = 0.9995
"""Share of the characters of a text that are in the alphabet, as in SentencePiece."""
_BATCH = 256


@dataclass(frozen=True)
class Merges:
    """What BPE has learnt.

    Attributes:
        alphabet: The characters.
        pairs: The merge pairs, in their order.
    """

    alphabet: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]


def splitter(normalizer: Any, pre_tokenizer: Any) -> Backend:
    """Return a tokenizer without a model, which normalizes and splits.

    Args:
        normalizer: The parsed normalizer, None for none.
        pre_tokenizer: The parsed pre-tokenizer, None for none.

    Raises:
        InputError: bad-tokenizer.
    """
    spec = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": None,
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }
    return make_backend(spec, Path("pre-tokenizer"))


def alphabet_of(pieces: Iterable[str], backend: Backend, without: str) -> tuple[str, ...]:
    """Return the characters that make up nearly all of a text, the most frequent first.

    Args:
        pieces: The text.
        backend: Its normalizer is used.
        without: Characters that are not counted.
    """
    counts = np.zeros(0x110000, np.int64)
    stream = iter(pieces)
    while batch := list(islice(stream, _BATCH)):
        text = "".join(backend.normalizer.normalize_str(one) for one in batch) if backend.normalizer else "".join(batch)
        found = np.bincount(np.frombuffer(text.encode("utf-32-le", "replace"), "<u4"))
        counts[: len(found)] += found
    counts[[ord(one) for one in without]] = 0
    order = np.lexsort((np.arange(len(counts)), -counts))
    order = order[: np.count_nonzero(counts)]
    enough = int(np.searchsorted(np.cumsum(counts[order]), _COVERED * counts.sum())) + 1
    return tuple(map(chr, order[:enough].tolist()))


def train_bpe(pieces: Iterable[str], backend: Backend, tokens: int, alphabet: Sequence[str]) -> Merges:
    """Train BPE.

    Args:
        pieces: The text.
        backend: What normalizes and splits it; its model is replaced.
        tokens: How many tokens to train, the alphabet not included.
        alphabet: The characters of the text, which are all tokens.

    Returns:
        The merges; fewer than asked for where the text has no more pairs that occur twice.
    """
    from tokenizers import trainers

    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + tokens,
        initial_alphabet=list(alphabet),
        limit_alphabet=len(alphabet),
        min_frequency=_TWICE,
        show_progress=False,
    )
    model = _trained(pieces, backend, trainer)
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    return Merges(tuple(alphabet), tuple((left, right) for left, right in pairs))


def train_unigram(
    pieces: Iterable[str], backend: Backend, tokens: int, alphabet: Sequence[str]
) -> tuple[tuple[str, float], ...]:
    """Train Unigram.

    Args:
        pieces: The text.
        backend: What normalizes and splits it; its model is replaced.
        tokens: How many tokens to train, the alphabet included.
        alphabet: The characters of the text, which are all tokens.

    Returns:
        Tokens and scores, the likeliest first, but the alphabet before all others.
    """
    from tokenizers import models, trainers

    backend.model = models.Unigram()
    trainer = trainers.UnigramTrainer(
        vocab_size=tokens, initial_alphabet=list(alphabet), unk_token=None, show_progress=False
    )
    model = _trained(pieces, backend, trainer)
    characters = set(alphabet)
    ranked = sorted(model["vocab"], key=lambda entry: (entry[0] not in characters, -entry[1], entry[0]))
    return tuple((text, score) for text, score in ranked)


def train_wordpiece(
    pieces: Iterable[str], backend: Backend, tokens: int, alphabet: Sequence[str], prefix: str
) -> tuple[str, ...]:
    """Train WordPiece: BPE whose tokens inside a word have a prefix.

    Args:
        pieces: The text.
        backend: What normalizes and splits it; its model is replaced.
        tokens: How many tokens to train, the alphabet included.
        alphabet: The characters of the text, which are all tokens, with and without the prefix.
        prefix: What a token inside a word begins with.
    """
    from tokenizers import models, trainers

    backend.model = models.WordPiece(unk_token="", continuing_subword_prefix=prefix)
    trainer = trainers.WordPieceTrainer(
        vocab_size=tokens,
        # The trainer gives ids to other continuations in another order every time.
        special_tokens=[prefix + one for one in alphabet],
        initial_alphabet=list(alphabet),
        limit_alphabet=len(alphabet),
        min_frequency=_TWICE,
        continuing_subword_prefix=prefix,
        show_progress=False,
    )
    vocab = _trained(pieces, backend, trainer)["vocab"]
    return tuple(sorted(vocab, key=vocab.__getitem__))


def encode(backend: Backend, pieces: Iterable[str]) -> Iterator[np.ndarray]:
    """Yield the ids of each piece of a text (uint32 [T]), on all cores.

    Args:
        backend: The tokenizer.
        pieces: The text.
    """
    stream = iter(pieces)
    while batch := list(islice(stream, _BATCH)):
        with library_errors(Path("trained tokenizer")):
            rows = backend.encode_batch_fast(batch, add_special_tokens=False)
        for row in rows:
            yield np.array(row.ids, np.uint32)


def byte_symbols() -> tuple[str, ...]:
    """Return the byte alphabet, by byte."""
    return tuple(sorted(BYTE_ALPHABET, key=BYTE_ALPHABET.__getitem__))


def _trained(pieces: Iterable[str], backend: Backend, trainer: Any) -> dict[str, Any]:
    with library_errors(Path("corpus")):
        backend.train_from_iterator(iter(pieces), trainer)
        model: dict[str, Any] = json.loads(backend.to_str())["model"]
    return model
