"""Superwords in two stages: merges within words, then merges of the tokens that these give, across spaces.

The library's trainer cannot go on from existing merges. It learns from characters, so the ids of the first stage are
written as one character each, and the merges of the second stage are translated back.

Reference: arXiv 2503.13423 (SuperBPE)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from tokswap.tokenizer.backend import Backend
from tokswap.train.trainers import Merges, encode, splitter, train_bpe

_FIRST = 0x10000
"""Code point of id 0: there is room for a million ids, without a gap."""
_BREAK = ord("\n")
_LONGEST = 64
"""Tokens of a string that is trained on. A merge takes the time of all strings that have it."""
_MOST_WORDS = 4
"""Words of a superword, at most."""
_MORE = 1.1
"""How many more merges to train than tokens are needed: some give a token that is there, or too many words."""
_WORD = re.compile(rb"(?:^|[ \t])[^ \t]")


def train_superwords(pieces: Iterable[str], backend: Backend, token_bytes: Sequence[bytes], tokens: int) -> Merges:
    """Train merges of tokens, across spaces.

    No superword contains a digit, nor goes on after a colon or a line break, as in SuperBPE.

    Args:
        pieces: The text.
        backend: The tokenizer of the first stage, which splits text as the result will.
        token_bytes: The bytes of its tokens, by id.
        tokens: How many superwords to train.

    Returns:
        The merges of ids, as texts of one character an id; see `translated`.
    """
    alphabet = [chr(_FIRST + token) for token in range(len(token_bytes))]
    strings = _strings(encode(backend, pieces), token_bytes)
    return train_bpe(strings, splitter(None, None), int(tokens * _MORE) + 16, alphabet)


def translated(merges: Merges, texts: Sequence[str], token_bytes: Sequence[bytes]) -> Iterator[tuple[str, str]]:
    """Yield the merges in the spelling of the tokens, without those of too many words.

    Args:
        merges: What `train_superwords` returns.
        texts: The spelling of each token of the first stage.
        token_bytes: The bytes of each.
    """
    left_out: set[str] = set()
    for left, right in merges.pairs:
        ids = [ord(one) - _FIRST for one in left + right]
        words = _WORD.findall(b"".join(token_bytes[token] for token in ids))
        if len(words) > _MOST_WORDS or left in left_out or right in left_out:
            left_out.add(left + right)
            continue
        yield _spelled(left, texts), _spelled(right, texts)


def _spelled(characters: str, texts: Sequence[str]) -> str:
    return "".join(texts[ord(one) - _FIRST] for one in characters)


def _strings(rows: Iterable[np.ndarray], token_bytes: Sequence[bytes]) -> Iterator[str]:
    """Yield ids as strings of one character each, cut where no superword may go on."""
    is_end = np.array([one.endswith(b":") for one in token_bytes])
    is_alone = np.array([any(byte in b"0123456789\r\n" for byte in one) for one in token_bytes])
    for ids in rows:
        points = np.where(is_alone[ids], _BREAK, ids + _FIRST)
        points = np.insert(points, np.flatnonzero(is_end[ids]) + 1, _BREAK)
        for line in points.astype("<u4").tobytes().decode("utf-32-le").split("\n"):
            for at in range(0, len(line), _LONGEST):
                if at + 1 < len(line):
                    yield line[at : at + _LONGEST]
