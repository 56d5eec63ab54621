"""The text of a healing: read in a stream, split into passages, and tokenized as teacher and student do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tokswap.errors import InputError, count_of
from tokswap.heal.project import Tokenized, tokenized
from tokswap.storage.documents import documents, text_files
from tokswap.tokenizer.tokenizer import Tokenizer

PASSAGE_BYTES = 1400
_HELD_OUT, _MOST_HELD_OUT = 3, 48
"""Fewest and most passages that are held out."""
_LEAST = 6
"""Fewest passages of a text."""
_LEAST_BYTES = 8000
"""What makes so many passages, of a text without short ones."""
_BATCH = 256


@dataclass(frozen=True)
class Side:
    """One of the two models that read the text.

    Attributes:
        tokenizer: Its tokenizer.
        lead: Ids that come before every passage: bos, or none.
        longest: Tokens that it can read at once, None for no limit.
    """

    tokenizer: Tokenizer
    lead: tuple[int, ...]
    longest: int | None = None

    def fits(self, ids: Sequence[int]) -> bool:
        """Return whether it can read a passage at once."""
        return self.longest is None or len(ids) + len(self.lead) <= self.longest


@dataclass(frozen=True)
class Passage:
    """A part of a text as both models read it.

    Attributes:
        name: The file that it is from.
        bytes: Its size in UTF-8.
        teacher: Its tokens under the teacher's tokenizer.
        student: Its tokens under the student's.
    """

    name: str
    bytes: int
    teacher: Tokenized
    student: Tokenized

    @property
    def differences(self) -> int:
        """Places where a token of one of the two ends and none of the other: most of what there is to learn."""
        return len(np.setxor1d(self.teacher.bounds, self.student.bounds))


@dataclass(frozen=True)
class HealText:
    """The text of a healing.

    Attributes:
        training: What the student learns from.
        held_out: What it is judged by.
        skipped: Bytes of passages whose tokens do not have the bytes of the text.
    """

    training: tuple[Passage, ...]
    held_out: tuple[Passage, ...]
    skipped: int = 0

    @property
    def bytes(self) -> int:
        """Size of the training text."""
        return sum(passage.bytes for passage in self.training)

    @property
    def tokens(self) -> int:
        """Student tokens of the training text."""
        return sum(len(passage.student.ids) for passage in self.training)


def text_parts(paths: Iterable[str | Path], key: str) -> Iterator[tuple[str, str]]:
    """Yield the texts of files in parts of passage size, each with the name of its file.

    Args:
        paths: Files, folders or patterns: text, JSON lines, parquet, also packed as .gz.
        key: Name of the text field in JSON lines and parquet files.

    Raises:
        InputError: bad-text, empty-text, missing-field, missing-extra.
    """
    for path in paths:
        for file in text_files(path):
            empty = True
            for text in _whole(file, key):
                empty = empty and not text.strip()
                if "\0" in text:
                    hint = "give plain text, JSON lines or parquet"
                    raise InputError("bad-text", "this is not a text: it has zero bytes", hint, file=file)
                yield from ((file.name, part) for part in split(text, PASSAGE_BYTES) if part.strip())
            if empty:
                raise InputError("empty-text", "this text is empty", file=file)


def _whole(file: Path, key: str) -> Iterator[str]:
    """Yield the texts of a file; a long text comes in parts."""
    held = ""
    for part, is_last in documents(file, key):
        held += part
        if is_last or len(held) > PASSAGE_BYTES:
            yield held
            held = ""


def paired_text(
    parts: Iterable[tuple[str, str]], teacher: Side, student: Side, *, share: float, name: str = "this text"
) -> HealText:
    """Tokenize passages for both models, and hold some out. No passage is in both parts.

    Args:
        parts: Names and texts, from `text_parts`.
        teacher: The model to learn from.
        student: The model that learns.
        share: Share of the passages to hold out.
        name: What a message calls the text.

    Raises:
        InputError: text-too-small; text-changed where a tokenizer changes most of the text.
    """
    passages, skipped = paired_passages(parts, teacher, student)
    keys = [one.student.ids.tobytes() for one in passages]
    distinct = list(dict.fromkeys(keys))
    if len(distinct) < _LEAST:
        size, of = sum(one.bytes for one in passages), count_of(len(distinct), "different passage")
        raise _too_small(f"{name} has {count_of(size, 'byte')} in {of}")
    wanted = min(max(_HELD_OUT, round(share * len(distinct))), _MOST_HELD_OUT)
    places = [int((n + 0.5) * len(distinct) / wanted) for n in range(wanted)]
    held = {distinct[place]: passages[keys.index(distinct[place])] for place in places}
    # What is judged must not be learnt: texts repeat themselves.
    training = tuple(one for key, one in zip(keys, passages, strict=True) if key not in held)
    return HealText(training, tuple(held.values()), skipped=skipped)


def paired_passages(parts: Iterable[tuple[str, str]], teacher: Side, student: Side) -> tuple[list[Passage], int]:
    """Tokenize passages for both models; returns them and the bytes of those that cannot be used.

    Args:
        parts: Names and texts, from `text_parts`.
        teacher: The model to learn from.
        student: The model that learns.

    Raises:
        InputError: text-changed where a tokenizer changes most of the text.
    """
    passages: list[Passage] = []
    skipped = 0
    for batch in _batches(parts):
        found = list(_paired(batch, teacher, student))
        passages += [one for one in found if isinstance(one, Passage)]
        skipped += sum(one for one in found if isinstance(one, int))
    kept = sum(passage.bytes for passage in passages)
    if skipped > kept:
        raise InputError(
            "text-changed",
            f"the tokens of teacher and student do not have the bytes of this text: {skipped:,} of {skipped + kept:,} "
            "bytes are in passages that one of the tokenizers changes (lower case, Unicode forms, unknown tokens)",
            "heal with text that both tokenizers keep as it is",
        )
    return passages, skipped


def check_amount(written: int) -> None:
    """Check that text that the teacher writes alone is enough. Raises InputError text-too-small."""
    if written < _LEAST_BYTES:
        raise _too_small(f"--self-text asks for {count_of(written, 'byte')}")


def _too_small(found: str) -> InputError:
    hint = f"give {_LEAST_BYTES // 1000} kB or more; 100 kB is a good start"
    return InputError("text-too-small", f"{found}, too few to learn and to judge by", hint)


def padded(
    passages: Sequence[np.ndarray], lead: Sequence[int], device: torch.device | str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Put passages in a batch.

    Args:
        passages: Ids of each passage, int32 [m].
        lead: Ids that come before every passage.
        device: Where the tensors go.

    Returns:
        Ids and mask, int64 [B, n], and the places in the flat batch from which the tokens are predicted, int64: each
        token, or each but the first of a passage where there is no lead.
    """
    rows = [np.concatenate([np.array(lead, np.int64), ids]) for ids in passages]
    longest = max(map(len, rows))
    ids, mask = np.zeros((2, len(rows), longest), np.int64)
    places = []
    for n, row in enumerate(rows):
        ids[n, : len(row)], mask[n, : len(row)] = row, 1
        places.append(n * longest + np.arange(max(len(lead), 1) - 1, len(row) - 1))
    tensors = (torch.from_numpy(one).to(device) for one in (ids, mask, np.concatenate(places)))
    return next(tensors), next(tensors), next(tensors)


def _batches(parts: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    for part in parts:
        batch.append(part)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _paired(batch: Sequence[tuple[str, str]], teacher: Side, student: Side) -> Iterator[Passage | int]:
    """Tokenize passages, in halves where they are too long; yields the bytes of those that cannot be used."""
    texts = [text for _, text in batch]
    sides = ((teacher, teacher.tokenizer.encode_batch(texts)), (student, student.tokenizer.encode_batch(texts)))
    for n, (name, text) in enumerate(batch):
        size = len(text.encode("utf-8"))
        if len(text) > 1 and not all(side.fits(rows[n]) for side, rows in sides):
            halves = [(name, half) for half in split(text, -(-size // 2))]
            yield from _paired(halves, teacher, student)
            continue
        both = [tokenized(side.tokenizer, text, rows[n]) for side, rows in sides]
        if both[0] is None or both[1] is None:
            yield size
        elif min(len(one.ids) for one in both if one is not None) > 1:
            yield Passage(name, size, teacher=both[0], student=both[1])


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
