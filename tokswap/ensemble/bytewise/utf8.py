"""UTF-8 byte by byte: which bytes may follow the beginning of a character. Pure."""

from __future__ import annotations

from functools import cache

import numpy as np


def split(data: bytes) -> tuple[bytes, bytes] | None:
    """Divide bytes into whole characters and an incomplete last one (at most three bytes).

    Args:
        data: The beginning of a text.

    Returns:
        The whole characters and the bytes of the incomplete one, or None if no text begins with `data`.
    """
    try:
        data.decode("utf-8")
        return data, b""
    except UnicodeDecodeError as error:
        if error.end != len(data) or completions(data[error.start :]) == 0:
            return None
        return data[: error.start], data[error.start :]


@cache
def completions(rest: bytes) -> int:
    """Count the characters that begin with these bytes: 1 for a whole character, 0 if there is none."""
    low, high = span(rest)
    surrogates = max(0, min(high, 0xE000) - max(low, 0xD800))
    return max(0, high - low) - surrogates


@cache
def span(rest: bytes) -> tuple[int, int]:
    """Return the range of code points that begin with these bytes.

    Args:
        rest: One to four bytes.

    Returns:
        The first code point and the one after the last; (0, 0) if there is none. The range may hold surrogates.
    """
    lead = rest[0]
    if lead < 0x80:
        size, value, least = 1, lead, 0
    elif 0xC2 <= lead < 0xE0:
        size, value, least = 2, lead & 0x1F, 0x80
    elif 0xE0 <= lead < 0xF0:
        size, value, least = 3, lead & 0x0F, 0x800
    elif 0xF0 <= lead < 0xF5:
        size, value, least = 4, lead & 0x07, 0x10000
    else:
        return 0, 0
    if len(rest) > size or any(byte & 0xC0 != 0x80 for byte in rest[1:]):
        return 0, 0
    for byte in rest[1:]:
        value = value << 6 | byte & 0x3F
    missing = 6 * (size - len(rest))
    low, high = value << missing, value + 1 << missing
    low, high = max(low, least), min(high, 0x110000)
    return (low, high) if low < high else (0, 0)


@cache
def examples(rest: bytes, most: int = 64) -> list[str]:
    """Return characters that begin with these bytes: all of them, or `most` evenly spread ones; [""] for no bytes."""
    if not rest:
        return [""]
    points = [point for point in range(*span(rest)) if not 0xD800 <= point < 0xE000]
    if len(points) > most:
        points = [points[n * len(points) // most] for n in range(most)]
    return [chr(point) for point in points]


@cache
def may_follow(rest: bytes) -> np.ndarray:
    """Say what may come after an incomplete character.

    Args:
        rest: The bytes of the incomplete character, b"" after a whole one.

    Returns:
        Whether each byte may follow and, last, whether the text may end (bool [257], read-only).
    """
    allowed = np.array([completions(rest + bytes([byte])) > 0 for byte in range(256)] + [not rest])
    allowed.setflags(write=False)
    return allowed
