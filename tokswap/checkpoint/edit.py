"""An edit: where every row of every vocabulary matrix of a result comes from, and the files beside the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tokswap.checkpoint.configs import Configs
from tokswap.checkpoint.embeddings import NewRows
from tokswap.checkpoint.mapped import release
from tokswap.checkpoint.matrices import VocabMatrix
from tokswap.checkpoint.reader import Checkpoint


@dataclass(frozen=True)
class MatrixEdit:
    """One vocabulary matrix of the result.

    Attributes:
        matrix: The source matrix whose rows are copied.
        names: The tensors to write it as.
        source_of: The source row of each new row, int32 [V_new]; -1 for rows that are computed.
    """

    matrix: VocabMatrix
    names: tuple[str, ...]
    source_of: np.ndarray

    @property
    def name(self) -> str:
        """The first tensor, which names the matrix."""
        return self.names[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in the result."""
        rows = len(self.source_of)
        return (1, rows) if self.matrix.axis == 1 else (rows, *self.matrix.shape[1:])

    @property
    def nbytes(self) -> int:
        """Bytes of one tensor of the result."""
        return len(self.source_of) * self.matrix.row_bytes

    @property
    def computed(self) -> int:
        """Number of rows that are not copied."""
        return int(np.count_nonzero(self.source_of < 0))


Convert = Callable[[np.ndarray], np.ndarray]
"""Makes rows of another type of some rows."""


def merged_blocks(
    edit: MatrixEdit, raw: np.ndarray, new: NewRows, *, size: int, compute: Convert
) -> Iterator[np.ndarray]:
    """Yield the raw rows of a new matrix in blocks: copied rows and computed rows, each in its place.

    In a per-layer matrix a source id past its end stands for row 0: Gemma-3n, whose per-layer matrix is the shorter
    one, reads that row for image and audio tokens.

    Args:
        edit: Where every row comes from.
        raw: The raw source rows, uint8 [V, row bytes].
        new: The computed rows, float32 [n, D].
        size: Rows of a block.
        compute: Converts computed rows to raw ones.
    """
    if len(new) != edit.computed:
        raise ValueError(f"{edit.computed} rows of {edit.name} have no source, and {len(new)} were computed")
    used = 0
    for start in range(0, len(edit.source_of), size):
        source = edit.source_of[start : start + size]
        copied = source >= 0
        if edit.matrix.role == "per-layer":
            source = np.where(source < len(raw), source, 0)
        old = raw[source[copied]]
        release(raw)
        block = np.empty((len(source), *old.shape[1:]), old.dtype)
        block[copied] = old
        count = len(source) - len(old)
        if count:
            block[~copied] = compute(new[used : used + count])
            used += count
        yield block


GroupRows = Mapping[str, NewRows]
"""The computed rows of each matrix of a group, by the name of its `MatrixEdit`."""


@dataclass(frozen=True)
class Edit:
    """A change of vocabulary.

    Attributes:
        checkpoint: The source.
        matrices: What becomes of each vocabulary matrix.
        configs: config.json, generation_config.json and tokenizer_config.json of the result.
        files: Name -> content, or the path of a file or folder to copy; all other files but the weights.
        changed: Other tensors whose numbers change -> the new numbers from the old ones, both float32 [shape].
    """

    checkpoint: Checkpoint
    matrices: tuple[MatrixEdit, ...]
    configs: Configs
    files: Mapping[str, bytes | Path]
    changed: Mapping[str, Convert] = field(default_factory=dict)

    @property
    def groups(self) -> tuple[tuple[MatrixEdit, ...], ...]:
        """The matrices that are solved together: lm_head and its biases, whose rows answer to the same weights."""
        heads = [edit for edit in self.matrices if edit.matrix.role == "output" or edit.matrix.is_head]
        biases = [edit for edit in self.matrices if edit.matrix.role == "bias"]
        if biases and not heads:
            heads = [edit for edit in self.matrices if edit.matrix.role == "input"][:1]
        return tuple(
            (edit, *biases) if heads and edit is heads[0] else (edit,)
            for edit in self.matrices
            if edit.matrix.role != "bias"
        )


def untied(edit: MatrixEdit, head: str) -> tuple[MatrixEdit, MatrixEdit]:
    """Split a tied matrix into input embeddings under its old names and an lm_head named `head`."""
    inputs = replace(edit, matrix=replace(edit.matrix, is_head=False))
    return inputs, replace(edit, matrix=replace(edit.matrix, role="output", is_head=False), names=(head,))
