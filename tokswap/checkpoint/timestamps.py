"""Timestamps of Whisper: it has no list of them and reads each id after `<|notimestamps|>` as a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile

from tokswap.errors import InputError
from tokswap.tokenizer.vocabulary import Vocabulary

TIMES_FOLLOW_IDS = ("whisper",)
"""Model types that compute times from ids."""
_BEFORE = "<|notimestamps|>"
_TIMESTAMP = re.compile(r"<\|\d+\.\d\d\|>")


def check_timestamps(source: Vocabulary, target: Vocabulary) -> None:
    """Refuse a vocabulary in which other tokens would be read as times. The last timestamps may be gone.

    Args:
        source: The vocabulary of the model.
        target: The new one.

    Raises:
        InputError: timestamps-not-last.
    """
    before, after = _tail(source.text), _tail(target.text)
    times = list(takewhile(_TIMESTAMP.fullmatch, before))
    if not times or after == times[: len(after)]:
        return
    if len(before) > len(times) and after[: len(times)] == times:  # other tokens were read as times before
        return
    wrong = next((text for n, text in enumerate(after) if times[n : n + 1] != [text]), "")
    raise InputError(
        "timestamps-not-last",
        f"this model reads each id after {_BEFORE} as a time, and {wrong!r} would be one of them",
        "tokens cannot be added to this model; a target tokenizer needs the same timestamps at its end",
    )


def _tail(texts: Sequence[str]) -> list[str]:
    """Return the tokens after the one that means no timestamps, [] where there is none."""
    tail = list(texts[list(texts).index(_BEFORE) + 1 :]) if _BEFORE in texts else []
    while tail and not tail[-1]:
        del tail[-1]
    return tail
