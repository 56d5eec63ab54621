"""Embedding rows as float32, read on demand from wherever their bytes are. Knows dtypes; opens no file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from tokswap.checkpoint.mapped import release
from tokswap.checkpoint.matrices import FLOATS
from tokswap.tokenizer.vocabulary import Vocabulary

_TORCH_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_NUMPY_TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
_BLOCK_ROWS, _FINITE_ROWS = 8192, 256
_BLOCK_ELEMENTS, _READ_ELEMENTS = 1 << 22, 1 << 18
"""Most elements of a block of rows, and of what is converted at a time; 16 and 1 MB in float32."""
_EXPONENTS = {
    "F64": (np.uint64, 0x7FF << 52),
    "F32": (np.uint32, 0xFF << 23),
    "F16": (np.uint16, 0x1F << 10),
    "BF16": (np.uint16, 0xFF << 7),
}
"""For each dtype, the type of its bits, and the bits that are all set only in infinities and NaN (IEEE 754)."""


class NewRows(Protocol):
    """The computed rows of a matrix, float32 [n, D]: an array, or an object that makes blocks of them on demand."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> np.ndarray: ...


def decode(raw: np.ndarray, dtype: str) -> np.ndarray:
    """Convert raw rows to numbers.

    Args:
        raw: uint8 [n, bytes per row].
        dtype: What the bytes are, as safetensors names it.

    Returns:
        float32 [n, D].
    """
    raw = np.ascontiguousarray(raw)
    if dtype == "BF16":  # the upper half of a float32
        words = raw.view(np.uint16).astype(np.uint32)
        words <<= 16
        return words.view(np.float32)
    return raw.view(_NUMPY_TYPES[dtype]).astype(np.float32)


def encode(rows: np.ndarray, dtype: str) -> np.ndarray:
    """Convert numbers to raw rows. Each number is rounded once, to the nearest.

    Args:
        rows: float32 [n, D].
        dtype: What to write, as safetensors names it.

    Returns:
        uint8 [n, bytes per row].
    """
    import torch

    if not rows.size:
        return np.empty((len(rows), rows.shape[1] * FLOATS[dtype]), np.uint8)
    values = torch.from_numpy(np.ascontiguousarray(rows, np.float32)).to(getattr(torch, _TORCH_NAMES[dtype]))
    return values.contiguous().view(torch.uint8).numpy()


def _block_parts(count: int, width: int) -> Iterator[slice]:
    """Split rows into blocks of a bounded number of rows and of elements."""
    size = max(1, min(_BLOCK_ROWS, _BLOCK_ELEMENTS // max(width, 1)))
    return (slice(start, start + size) for start in range(0, count, size))


def row_norms(rows: np.ndarray) -> np.ndarray:
    """Return the Euclidean norm of each row, float32 [n].

    Args:
        rows: float32 [n, D].
    """
    # In blocks: numpy would square a copy of the whole matrix.
    size = max(1, _READ_ELEMENTS // max(rows.shape[1], 1))
    blocks = (rows[start : start + size] for start in range(0, len(rows), size))
    return np.concatenate([np.zeros(0, np.float32), *(np.linalg.norm(block, axis=1) for block in blocks)])


@dataclass(frozen=True)
class Columns:
    """Some columns of an embedding space.

    Attributes:
        raw: Raw rows, uint8 [V, bytes per row], often memory-mapped.
        dtype: What the bytes are, as safetensors names it.
        shift: Subtracted from every element.
        unread: Whether each row is read as zeros, bool [V]; None where no row is.
    """

    raw: np.ndarray
    dtype: str
    shift: float = 0.0
    unread: np.ndarray | None = None

    @property
    def width(self) -> int:
        """Elements per row."""
        return int(self.raw.shape[1]) // FLOATS[self.dtype]

    def finite(self) -> np.ndarray:
        """Return whether each row is finite, bool [V]. Only the bits are read; nothing is converted."""
        word, exponent = _EXPONENTS[self.dtype]
        result: np.ndarray = np.empty(len(self.raw), bool)
        for start in range(0, len(result), _FINITE_ROWS):
            part = slice(start, start + _FINITE_ROWS)
            bits = np.ascontiguousarray(self.raw[part]).view(word)
            result[part] = (bits & word(exponent)).max(axis=1, initial=0) < exponent
            release(self.raw)
        return result

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return some rows, float32 [len(ids), D]. An id past the last row stands for row 0."""
        # A matrix may end before its vocabulary, as Gemma-3n's per-layer one does; the model then reads row 0.
        ids = np.where(ids < len(self.raw), ids, 0)
        rows = np.empty((len(ids), self.width), np.float32)
        size = max(1, _READ_ELEMENTS // max(self.width, 1))
        for start in range(0, len(ids), size):  # of the raw rows, a few are held beside their numbers
            part = slice(start, start + size)
            rows[part] = decode(self.raw[ids[part]], self.dtype)
            release(self.raw)
        if self.shift:
            rows -= np.float32(self.shift)
        if self.unread is not None:
            rows[self.unread[ids]] = 0
        return rows


@dataclass(frozen=True)
class EmbeddingSpace:
    """Rows by token id, float32 [V, D]: one matrix, or several side by side (lm_head and its bias).

    No row is held in memory: `rows` converts the rows that it is asked for, and gives their pages back.

    Attributes:
        vocabulary: Tells what each id means.
        columns: The matrices, side by side.
        name: Tells the spaces of one run apart in a cache.
    """

    vocabulary: Vocabulary
    columns: Sequence[Columns]
    name: str = ""

    @classmethod
    def from_array(cls, vocabulary: Vocabulary, rows: np.ndarray) -> EmbeddingSpace:
        """Wrap rows that are in memory already, float32 [V, D]."""
        return cls(vocabulary, (Columns(np.ascontiguousarray(rows, np.float32).view(np.uint8), "F32"),))

    def __len__(self) -> int:
        return int(self.columns[0].raw.shape[0])

    @property
    def width(self) -> int:
        """D, the elements per row."""
        return sum(columns.width for columns in self.columns)

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return the rows of some ids, float32 [len(ids), D]."""
        parts = [columns.rows(ids) for columns in self.columns]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def blocks(self, ids: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the rows of some ids in blocks, so that a pass over all rows needs the memory of one block."""
        for part in _block_parts(len(ids), self.width):
            yield self.rows(ids[part])

    def blocks_beside(
        self, ids: np.ndarray, other: EmbeddingSpace, other_ids: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield blocks of rows of this space and of another, which may be narrower or wider, with equally many rows.

        Args:
            ids: Ids in this space, int64 [n].
            other: The other space.
            other_ids: Ids there, int64 [n].
        """
        for part in _block_parts(len(ids), max(self.width, other.width)):
            yield self.rows(ids[part]), other.rows(other_ids[part])

    def mean(self, ids: np.ndarray) -> np.ndarray:
        """Return the mean row of some ids, float32 [D], summed in float64."""
        total = np.zeros(self.width, np.float64)
        for block in self.blocks(ids):
            total += block.sum(axis=0, dtype=np.float64)
        return np.asarray(total / max(len(ids), 1), np.float32)

    def norms(self, ids: np.ndarray) -> np.ndarray:
        """Return the Euclidean norms of the rows of some ids, float32 [len(ids)]. No row is read twice for them."""
        new = np.unique(ids[np.isnan(self._known_norms[ids])])
        for part in _block_parts(len(new), self.width):
            self._known_norms[new[part]] = row_norms(self.rows(new[part]))
        return np.asarray(self._known_norms[ids])

    @cached_property
    def _known_norms(self) -> np.ndarray:
        """Norms that were computed, float32 [V]; NaN for the others."""
        return np.full(max(len(self), len(self.vocabulary)), np.nan, np.float32)
