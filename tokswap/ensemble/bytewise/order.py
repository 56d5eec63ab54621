"""The text tokens of a vocabulary, sorted by their bytes, so that tokens with a common beginning are neighbours."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate

import numpy as np

from tokswap.tokenizer.vocabulary import Kind, Vocabulary


class TokenOrder:
    """Text tokens sorted by their bytes. Special tokens are not among them: they are no text.

    Attributes:
        ids: Token id at each place (int64 [T]).
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        token_bytes, kind = vocabulary.token_bytes, vocabulary.kind
        text = np.flatnonzero((kind == Kind.NORMAL) | (kind == Kind.BYTE)).tolist()
        ids = sorted((token for token in text if token_bytes[token]), key=token_bytes.__getitem__)
        self.ids = np.array(ids, np.int64)
        self._bytes = [token_bytes[token] for token in ids]
        self._flat = np.frombuffer(b"".join(self._bytes) + b"\0", np.uint8)
        self._first = np.array([one[0] for one in self._bytes], np.intp)
        self._begins = np.array(list(accumulate(map(len, self._bytes), initial=0)))[:-1]

    def __len__(self) -> int:
        return len(self.ids)

    def longer_than(self, begin: bytes) -> tuple[int, int]:
        """Return the places (first, last + 1) of the tokens that begin with these bytes and are longer."""
        low = bisect_right(self._bytes, begin)
        after = begin.rstrip(b"\xff")
        high = bisect_left(self._bytes, after[:-1] + bytes([after[-1] + 1]), low) if after else len(self)
        return low, high

    def first_from(self, begin: bytes) -> int:
        """Return the first place of the tokens that begin with these bytes."""
        return bisect_left(self._bytes, begin)

    def bytes_at(self, low: int, high: int, depth: int) -> np.ndarray:
        """Return the byte at one depth of each token at the places low:high (int [n]). All must be longer than that."""
        found: np.ndarray = self._first[low:high] if not depth else self._flat[self._begins[low:high] + depth]
        return found
