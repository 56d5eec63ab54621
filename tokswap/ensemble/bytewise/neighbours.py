"""Contexts that are alike: the tokens that may follow "bridge" with a space may follow "ferry" too."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from tokswap.tokenizer.vocabulary import Kind, Vocabulary

_LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class NeighbourBytes:
    """Says which answers of a BPE tokenizer hold for other contexts too.

    If no token of the vocabulary contains the last byte of a token before the first byte of the next one, then no merge
    joins the two, and whether the next one may follow depends only on where the pre-tokenizer splits. Pre-tokenizers
    split by classes of characters. So a token that ends with an ASCII letter stands for all of them, and one that ends
    with another printable ASCII character for those that end with the same one.

    Args:
        vocabulary: The vocabulary.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def stands_for(self, last: int) -> int | None:
        """Return the token that stands for the context, None where the context stands for itself alone."""
        ending = self._vocabulary.token_bytes[last][-1:]
        if not b" " < ending < b"\x7f":
            return None
        found = self._vocabulary.id_of.get(b"a" if ending[0] in _LETTERS else ending)
        return None if found == last else found

    def apart(self, last: int, alike: int, tokens: np.ndarray) -> np.ndarray:
        """Say for which next tokens the answer for one context is that for the other.

        Args:
            last: Last token of a context.
            alike: What `stands_for` returned for it.
            tokens: The next tokens (int64 [n]).

        Returns:
            bool [n].
        """
        token_bytes = self._vocabulary.token_bytes
        joined = self._joined[token_bytes[last][-1]] | self._joined[token_bytes[alike][-1]]
        found: np.ndarray = ~joined[self._first[tokens]]
        return found

    @cached_property
    def _first(self) -> np.ndarray:
        """First byte of each token, 0 for an empty one (uint8 [V])."""
        return np.array([one[0] if one else 0 for one in self._vocabulary.token_bytes], np.uint8)

    @cached_property
    def _joined(self) -> np.ndarray:
        """Whether some token contains one byte before the other (bool [256, 256])."""
        found: np.ndarray = np.zeros((256, 256), bool)
        other = np.flatnonzero((self._vocabulary.kind != Kind.NORMAL) & (self._vocabulary.kind != Kind.BYTE)).tolist()
        texts = [self._vocabulary.text[token].encode("utf-8", "surrogatepass") for token in other]  # markup is no text
        for several in (self._vocabulary.token_bytes, texts):
            flat = np.frombuffer(b"".join(several), np.uint8)
            ends = np.cumsum([len(one) for one in several])
            inside = np.ones(max(len(flat) - 1, 0), bool)
            inside[ends[(ends > 0) & (ends < len(flat))] - 1] = False
            found[flat[:-1][inside], flat[1:][inside]] = True
        return found
