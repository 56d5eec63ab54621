"""The calibration text, cut into passages of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tokswap.errors import InputError
from tokswap.storage.texts import read_texts
from tokswap.tokenizer.tokenizer import Tokenizer

_BYTES = 1000
_LEAST = 4000


@dataclass(frozen=True)
class Passage:
    """A run of text. ids: int64[n], what the new tokenizer makes of it. bytes: its length in UTF-8."""

    ids: np.ndarray
    bytes: int


def read_passages(paths: Sequence[str | Path], tokenizer: Tokenizer, longest: int | None = None) -> list[Passage]:
    """Read texts and cut them into passages of about 1,000 bytes, at white space where there is some.

    longest: tokens that a passage may have, where the model has positions for no more.
    Raises InputError: bad-text, empty-text; text-too-small for less than about 4 kB; text-not-spelt where the
    tokenizer leaves more than a tenth of a text unknown.
    """
    passages: list[Passage] = []
    unknown = tokenizer.vocabulary.roles.get("unk", -1)
    for name, text in read_texts([Path(path) for path in paths]).items():
        own = [passage for part in _cut(text, _BYTES) for passage in _passages(part, tokenizer, longest)]
        total = sum(len(passage.ids) for passage in own)
        lost = sum(int(np.count_nonzero(passage.ids == unknown)) for passage in own)
        if lost > 0.1 * total or not total:
            raise InputError(
                "text-not-spelt",
                f"the new tokenizer cannot spell this calibration text: {lost:,} of {total:,} tokens are unknown to it",
                "calibrate with text in the languages of the tokenizer",
                text=name,
            )
        passages += [passage for passage in own if len(passage.ids) > 1]
    size = sum(passage.bytes for passage in passages)
    if size < _LEAST:
        raise InputError(
            "text-too-small",
            f"the calibration text has {size:,} bytes, too few to learn from",
            "give 4 kB or more; 40 kB is a good start",
            text=", ".join(str(path) for path in paths),
        )
    return passages


def _passages(part: str, tokenizer: Tokenizer, longest: int | None) -> list[Passage]:
    ids, size = tokenizer.encode(part), len(part.encode("utf-8"))
    if longest is not None and len(ids) > longest and len(part) > 1:
        return [found for half in _cut(part, -(-size // 2)) for found in _passages(half, tokenizer, longest)]
    return [Passage(np.array(ids, np.int64), size)]


def _cut(text: str, most: int) -> list[str]:
    parts, start = [], 0
    while start < len(text):
        end = start + max(1, len(text[start : start + most].encode("utf-8")[:most].decode("utf-8", "ignore")))
        if end < len(text):
            # Before the white space: most tokenizers spell a word with the space in front of it.
            space = max(text.rfind(" ", start + 1, end), text.rfind("\n", start + 1, end))
            end = space if space > start + (end - start) // 2 else end
        parts.append(text[start:end])
        start = end
    return parts
