"""About how much memory and time a run takes, before it starts."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from tokswap.checkpoint.edit import MatrixEdit
from tokswap.init.base import TOKEN_BYTES, Sizes
from tokswap.init.made_rows import BLOCK, BLOCK_ELEMENTS
from tokswap.init.solver import RowTask
from tokswap.report.plan import Estimate
from tokswap.tokenizer.alignment import Reason
from tokswap.tokenizer.families import UNIGRAM
from tokswap.tokenizer.tokenizer import Tokenizer

_LIBRARIES_BYTES = 310_000_000
_UNIGRAM_TOKEN_BYTES = 2 * TOKEN_BYTES
_PARSING_BYTES = 400
"""What a token of the larger tokenizer takes besides while its file is parsed; it is free again afterwards."""
_PIECES_BYTES = 500
"""What the pieces of a new token take."""
_BLOCK_COPIES = 10
"""A block of rows, and what is gathered and multiplied to make it."""
_READ_BYTES = 50_000_000
"""Pages of the weights that are read in place, by memory map; they are given back soon."""


def estimate(task: RowTask, matrices: Sequence[MatrixEdit], *, written: int, checks: int = 0) -> Estimate:
    """Return about how much memory and time a run takes.

    Args:
        task: What rows are computed from.
        matrices: What becomes of each matrix.
        written: New bytes on disk.
        checks: Bytes of memory that the checks of the result take, once it is written.
    """
    alignment = task.alignment
    missing, anchors = len(alignment.missing), int(np.count_nonzero(alignment.reason == Reason.BYTES))
    owner = task.donor.checkpoint.matrix("input") if task.donor is not None else None
    flops, held = 0.0, 0
    for edit in matrices:
        if edit.matrix.role != "bias" and task.computes(edit.matrix.role):
            method = task.methods.of(edit.matrix.role)
            sizes = Sizes(
                vocabulary=len(task.source.tokenizer.vocabulary),
                missing=missing,
                anchors=anchors,
                width=edit.matrix.width,
                donor_width=owner.width if owner is not None else 0,
                tied=task.source.checkpoint.tied,
                work=task.context.memory,
                resources=task.context.resources,
            )
            flops += method.flops(missing, anchors, sizes.donor_width or sizes.width)
            own = method.held(sizes) + _block_bytes(sizes.width)
            held = max(held, own + _PIECES_BYTES * missing + _READ_BYTES)
    sides = (task.source.tokenizer, task.target)
    tokens = sum(map(tokenizer_bytes, sides))
    parsing = _PARSING_BYTES * max(len(tokenizer.vocabulary) for tokenizer in sides)
    seconds = flops / flops_per_second() + written / 1e9 + 2.0
    return Estimate(_LIBRARIES_BYTES + tokens + max(parsing, held, checks), round(seconds, 1))


def tokenizer_bytes(tokenizer: Tokenizer) -> int:
    """Return about how much memory a tokenizer takes."""
    return len(tokenizer.vocabulary) * (_UNIGRAM_TOKEN_BYTES if tokenizer.family == UNIGRAM else TOKEN_BYTES)


def _block_bytes(width: int) -> int:
    """What a block of new rows takes, with what it is made of."""
    return _BLOCK_COPIES * 4 * min(BLOCK_ELEMENTS, BLOCK * width)


def flops_per_second() -> float:
    """What this machine reaches in a small matrix product."""
    block = np.ones((768, 768), np.float32)
    begin = time.perf_counter()
    block @ block
    return float(2 * 768**3 / max(time.perf_counter() - begin, 1e-4))
