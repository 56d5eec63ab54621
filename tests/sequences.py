"""Token sequences of a text: every one, and the question whether a tokenizer makes it."""

from __future__ import annotations

from collections.abc import Iterator

from tokswap.ensemble.bytewise import utf8
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind


def everything(tokenizer: Tokenizer, data: bytes) -> Iterator[list[int]]:
    """Every token sequence whose bytes go past `data`, and do not without its last token."""
    vocabulary = tokenizer.vocabulary
    text = [
        n
        for n in range(len(vocabulary))
        if vocabulary.kind[n] in (Kind.NORMAL, Kind.BYTE) and vocabulary.token_bytes[n]
    ]

    def grow(ids: list[int], at: int) -> Iterator[list[int]]:
        for token in text:
            own = vocabulary.token_bytes[token]
            left = data[at:]
            if own.startswith(left) and len(own) > len(left):
                yield [*ids, token]
            elif left.startswith(own):
                yield from grow([*ids, token], at + len(own))

    yield from grow([], 0)


def is_canonical(tokenizer: Tokenizer, ids: list[int]) -> bool:
    """Whether the tokenizer makes these ids at the beginning of some text."""
    parts = utf8.split(b"".join(tokenizer.vocabulary.token_bytes[token] for token in ids))
    if parts is None:
        return False
    text = parts[0].decode()
    if not parts[1]:
        return tokenizer.encode(text) == ids
    points = [p for p in range(*utf8.span(parts[1])) if not 0xD800 <= p < 0xE000]
    points = [*points[:64], *points[-64:], *points[:: max(1, len(points) // 64)]]
    return any(tokenizer.encode(text + chr(point))[: len(ids)] == ids for point in points)
