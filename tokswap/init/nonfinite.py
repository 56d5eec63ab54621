"""Non-finite rows of a vocabulary matrix: harmless in rows that no text uses, and an error in all others."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from tokswap.checkpoint.embeddings import Columns, EmbeddingSpace
from tokswap.errors import InputError
from tokswap.tokenizer.vocabulary import Kind, Vocabulary


def sound(columns: Columns, vocabulary: Vocabulary, whose: str, folder: Path) -> Columns:
    """Return the rows of a matrix with zeros in the place of non-finite padding rows and reserved tokens.

    Args:
        columns: The rows.
        vocabulary: What their ids mean.
        whose: "model" or "donor", for the message.
        folder: Where the model is, for the message.

    Raises:
        InputError: nan-in-table, where the row of another token is non-finite.
    """
    finite = columns.finite()
    if finite.all():
        return columns
    bad = np.flatnonzero(~finite)
    wrong = bad[bad < len(vocabulary)]
    wrong = wrong[vocabulary.kind[wrong] != Kind.UNUSED]
    if len(wrong):
        raise InputError(
            "nan-in-table",
            f"the {whose}'s embedding matrix has non-finite rows, the first is row {wrong[0]}",
            "the checkpoint is damaged, or its training diverged",
            folder=folder,
        )
    return dataclasses.replace(columns, unread=~finite)


def unread_notes(space: EmbeddingSpace | None, whose: str) -> tuple[str, ...]:
    """Return a note about the rows that `sound` has replaced, if there are any."""
    if space is None:
        return ()
    count = max((int(columns.unread.sum()) for columns in space.columns if columns.unread is not None), default=0)
    if not count:
        return ()
    return (f"{count:,} padding rows or reserved tokens of the {whose} are non-finite; they are not used for new rows",)
