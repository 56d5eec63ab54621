"""The text of a calibration, split into passages and tokenized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tokswap.errors import InputError
from tokswap.storage.texts import read_texts
from tokswap.tokenizer.tokenizer import Tokenizer

_PASSAGE_BYTES = 1000
_LEAST_BYTES = 4000


@dataclass(frozen=True)
class Passage:
    """A part of a text.

    Attributes:
        ids: Its tokens under the target tokenizer, int64 [n].
        bytes: Its size in UTF-8.
    """

    ids: np.ndarray
    bytes: int


def read_passages(paths: Sequence[str | Path], tokenizer: Tokenizer, longest: int | None = None) -> list[Passage]:
    """Read texts and split them into passages of about 1,000 bytes, at white space where there is some.

    Args:
        paths: The files.
        tokenizer: The target tokenizer.
        longest: Tokens that a passage may have, None for any number.

    Raises:
        InputError: bad-text, empty-text; text-too-small for less than 4 kB; text-not-spelt where the tokenizer does not
            know more than a tenth of a text.
    """
    passages: list[Passage] = []
    unknown = tokenizer.vocabulary.roles.get("unk", -1)
    for name, text in read_texts([Path(path) for path in paths]).items():
        own = [passage for part in split(text, _PASSAGE_BYTES) for passage in _passages(part, tokenizer, longest)]
        total = sum(len(passage.ids) for passage in own)
        lost = sum(int(np.count_nonzero(passage.ids == unknown)) for passage in own)
        if lost > 0.1 * total or not total:
            raise InputError(
                "text-not-spelt",
                f"the target tokenizer cannot spell this text: {lost:,} of {total:,} tokens are its unknown token",
                "calibrate with text in the languages of the tokenizer",
                text=name,
            )
        passages += [passage for passage in own if len(passage.ids) > 1]
    size = sum(passage.bytes for passage in passages)
    if size < _LEAST_BYTES:
        raise InputError(
            "text-too-small",
            f"the calibration text has {size:,} bytes, too few to learn from",
            "give 4 kB or more; 40 kB is a good start",
            text=", ".join(str(path) for path in paths),
        )
    return passages


def _passages(part: str, tokenizer: Tokenizer, longest: int | None) -> list[Passage]:
    """Tokenize a part of a text, in halves where it has too many tokens."""
    ids, size = tokenizer.encode(part), len(part.encode("utf-8"))
    if longest is not None and len(ids) > longest and len(part) > 1:
        return [found for half in split(part, -(-size // 2)) for found in _passages(half, tokenizer, longest)]
    return [Passage(np.array(ids, np.int64), size)]


def split(text: str, most: int) -> list[str]:
    """Split a text into parts of at most `most` bytes, at white space where there is some."""
    parts, start = [], 0
    while start < len(text):
        end = start + max(1, len(text[start : start + most].encode("utf-8")[:most].decode("utf-8", "ignore")))
        if end < len(text):
            # Split before white space: most tokenizers join a word with the space in front of it.
            space = max(text.rfind(" ", start + 1, end), text.rfind("\n", start + 1, end))
            end = space if space > start + (end - start) // 2 else end
        parts.append(text[start:end])
        start = end
    return parts
