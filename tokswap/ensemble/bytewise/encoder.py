"""The canonical encodings of a text that grows, of which only the end is tokenized again."""

from __future__ import annotations

import numpy as np

from tokswap.ensemble.bytewise import utf8
from tokswap.ensemble.bytewise.canonical import Canonical

_OPEN_BYTES = 192
"""Bytes that are tokenized again; where there are more, the first tokens are settled."""
_OPEN_AFTER = 96
"""Bytes at the end that are never settled."""


class GrowingEncoder:
    """Encodes the beginnings of one text, each longer than the one before.

    Attributes:
        settled_bytes: Bytes of the first tokens, which are not tokenized again.
    """

    def __init__(self, canonical: Canonical) -> None:
        self._canonical = canonical
        self.reset()

    def reset(self) -> None:
        """Begin another text."""
        self._settled: list[int] = []
        self.settled_bytes = 0

    def encodings(self, data: bytes) -> list[list[int]]:
        """Return the canonical encodings of everything that has been read.

        Args:
            data: All bytes of the text so far.

        Returns:
            The token ids of each encoding; see `Canonical.encodings`.
        """
        if len(data) - self.settled_bytes > _OPEN_BYTES:
            self._settle(data)
        found = self._canonical.encodings(data[self.settled_bytes :])
        if self._settled:
            # The whole is canonical only if the pair of tokens at the seam is.
            seams = np.array([ids[0] for ids in found if ids], np.int64)
            if not self._canonical.may_follow(self._settled[-1], b"", seams).all():
                self.reset()
                return self._canonical.encodings(data)
        return [[*self._settled, *ids] for ids in found]

    def _settle(self, data: bytes) -> None:
        token_bytes = self._canonical.token_bytes
        parts = utf8.split(data[self.settled_bytes :])
        found = self._canonical.encodings(parts[0]) if parts else []
        if not found:
            return
        at = self.settled_bytes
        for token in found[0]:
            size = len(token_bytes[token])
            if at + size > len(data) - _OPEN_AFTER:
                break
            self._settled.append(token)
            at += size
        while self._settled and _ends_inside_character(data[:at]):
            at -= len(token_bytes[self._settled.pop()])
        self.settled_bytes = at


def _ends_inside_character(data: bytes) -> bool:
    parts = utf8.split(data)
    return parts is not None and bool(parts[1])
