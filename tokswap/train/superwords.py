"""Superwords in two stages: merges within words, then merges of the tokens that these give, across spaces.

The library's trainer cannot go on from existing merges. It learns from characters, so the ids of the first stage are
written as one character each, and the merges of the second stage are translated back.

Reference: arXiv 2503.13423 (SuperBPE)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind
from tokswap.train.trainers import Merges, encode, splitter, train_bpe

_FIRST = 0x10000
"""Code point of id 0: there is room for a million ids, without a gap."""
_BREAK = ord("\n")
_LONGEST = 64
"""Tokens of a string that is trained on. A merge takes the time of all strings that have it."""
_MOST_WORDS = 4
"""Words of a superword, at most."""
_MORE, _MUCH_MORE = 1.5, 4
"""How many merges to train for each token that is needed, and how many times more where that was too little: some give
a token that is there already, or one of too many words."""
_WORD = re.compile(rb"[A-Za-z0-9'\x80-\xff]+")


def train_superwords(pieces: Callable[[], Iterable[str]], first: Tokenizer, tokens: int) -> list[tuple[str, str]]:
    """Train merges of tokens, across spaces.

    No superword has more than four words or a digit, or goes on after a colon or a line break, as in SuperBPE.

    Args:
        pieces: Gives the text; it may be read several times.
        first: The tokenizer of the first stage, which splits text as the result will.
        tokens: How many superwords to train.

    Returns:
        The merges in the spelling of the tokens, in their order. They give more superwords than asked for, or fewer
        where the text has no more pairs that occur twice.
    """
    vocabulary = first.vocabulary
    texts, token_bytes = vocabulary.text, vocabulary.token_bytes
    # Added tokens are cut out of a text before the merges, and byte pieces are put in after them.
    merged = vocabulary.kind == Kind.NORMAL
    merged[[entry["id"] for entry in first.spec["added_tokens"]]] = False
    alphabet = [chr(_FIRST + token) for token in range(len(vocabulary))]
    asked = int(tokens * _MORE) + 16
    while True:
        strings = _strings(encode(first.backend, pieces()), token_bytes, merged)
        merges = train_bpe(strings, splitter(None, None), asked, alphabet)
        pairs = list(_translated(merges, texts, token_bytes))
        new = {left + right for left, right in pairs}.difference(texts)
        if len(new) >= tokens or len(merges.pairs) < asked:
            return pairs
        asked *= _MUCH_MORE


def _translated(merges: Merges, texts: Sequence[str], token_bytes: Sequence[bytes]) -> Iterator[tuple[str, str]]:
    """Yield merges of ids in the spelling of the tokens, without those of too many words."""
    left_out: set[str] = set()
    for left, right in merges.pairs:
        whole = b"".join(token_bytes[ord(one) - _FIRST] for one in left + right)
        words = max(len(_WORD.findall(whole)), len(whole.split()))
        if left in left_out or right in left_out or words > _MOST_WORDS:
            left_out.add(left + right)
        else:
            yield _spelled(left, texts), _spelled(right, texts)


def _spelled(characters: str, texts: Sequence[str]) -> str:
    return "".join(texts[ord(one) - _FIRST] for one in characters)


def _strings(rows: Iterable[np.ndarray], token_bytes: Sequence[bytes], merged: np.ndarray) -> Iterator[str]:
    """Yield ids as strings of one character each, cut where no superword may go on."""
    is_end = np.array([one.endswith(b":") for one in token_bytes])
    is_alone = np.array([any(byte in b"0123456789\r\n" for byte in one) for one in token_bytes]) | ~merged
    for ids in rows:
        points = np.where(is_alone[ids], _BREAK, ids + _FIRST)
        points = np.insert(points, np.flatnonzero(is_end[ids]) + 1, _BREAK)
        for line in points.astype("<u4").tobytes().decode("utf-32-le").split("\n"):
            for at in range(0, len(line), _LONGEST):
                if at + 1 < len(line):
                    yield line[at : at + _LONGEST]
