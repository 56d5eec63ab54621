"""Checks on the rows and tensors of a checkpoint, alone and beside those of its source model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tokswap.checkpoint.embeddings import Columns, EmbeddingSpace
from tokswap.checkpoint.matrices import VocabMatrix
from tokswap.checkpoint.reader import Checkpoint
from tokswap.evaluation.checks import Check, check_empty
from tokswap.report.provenance import Provenance
from tokswap.report.record import REPORT_NAME
from tokswap.report.wording import listed
from tokswap.tokenizer.tokenizer import Tokenizer

_TIMES_LARGEST = 3.0
"""A norm is too large if it is this many times the largest norm of a copied row."""
_TIMES_MEDIAN = 100.0
"""The same for the median norm, if it is not known which rows were copied."""
_BLOCK_ROWS = 8192


def row_checks(checkpoint: Checkpoint, tokenizer: Tokenizer, provenance: Provenance) -> Iterator[Check]:
    """Test that no row of an embedding matrix is zero, non-finite or far too large.

    Args:
        checkpoint: The checkpoint.
        tokenizer: Its tokenizer.
        provenance: Where its rows come from.
    """
    for matrix in checkpoint.matrices:
        if matrix.role in ("bias", "lookup"):
            continue
        columns = Columns(checkpoint.raw_rows(matrix.names[0], matrix.axis), matrix.dtype)
        norms = EmbeddingSpace(tokenizer.vocabulary, [columns]).norms(np.arange(matrix.rows))
        known = len(provenance.source_of) == matrix.rows
        copied = provenance.source_of >= 0 if known else np.zeros(matrix.rows, bool)
        yield from _norm_checks(f"{matrix.role} rows", norms, copied)


def _norm_checks(name: str, norms: np.ndarray, copied: np.ndarray) -> Iterator[Check]:
    """Test the norms of one matrix (float32 [V]); `copied` says which rows were copied (bool [V])."""
    typical = norms[copied & np.isfinite(norms)]
    limit = _TIMES_LARGEST * float(typical.max()) if len(typical) else _TIMES_MEDIAN * float(np.nanmedian(norms))
    problems = {
        "are non-finite": np.flatnonzero(~np.isfinite(norms)),
        "are zero": np.flatnonzero((norms == 0) & ~copied),
        "have a far too large norm": np.flatnonzero(norms > limit) if limit > 0 else np.zeros(0, np.int64),
    }
    for problem, ids in problems.items():
        if len(ids):
            yield Check(name, False, f"{len(ids):,} rows {problem}: {listed(ids.tolist())}")
    if not any(map(len, problems.values())):
        low, median, high = np.percentile(norms, [0, 50, 100])
        yield Check(name, True, f"finite; norms {low:.3g} to {high:.3g}, median {median:.3g}")


def source_checks(checkpoint: Checkpoint, source: Checkpoint, provenance: Provenance) -> Iterator[Check]:
    """Compare copied rows, and all tensors that hold none, with those of the source model.

    Args:
        checkpoint: The checkpoint.
        source: Its source model.
        provenance: Where its rows come from.
    """
    yield _copied_check(checkpoint, source, provenance)
    matrices = {name for owner in (checkpoint, source) for matrix in owner.matrices for name in matrix.names}
    others = [name for name in source.tensors if name not in matrices]
    lost = [name for name in others if name not in checkpoint.tensors]
    changed = [name for name in others if name not in lost and not _equal(checkpoint, source, name)]
    yield check_empty("no tensor lost", "missing", lost, f"{len(source.tensors)} tensors")
    yield check_empty("other tensors", "changed", changed, f"{len(others)} are unchanged, bit for bit")


def _copied_check(checkpoint: Checkpoint, source: Checkpoint, provenance: Provenance) -> Check:
    if len(provenance.source_of) != checkpoint.matrices[0].rows:
        return Check("copied rows", False, f"no {REPORT_NAME} says which rows were copied")
    copied = np.flatnonzero(provenance.source_of >= 0)
    compared = [
        (matrix, name) for matrix in checkpoint.matrices for name in matrix.names if name not in provenance.calibrated
    ]
    wrong = [name for matrix, name in compared if not _same_rows(checkpoint, source, matrix, name, provenance, copied)]
    fine = f"{len(copied):,} rows in {len(compared)} tensor(s) equal the source's, bit for bit"
    if provenance.calibrated:
        fine += f"; calibration changed every row of {', '.join(provenance.calibrated)}"
    return check_empty("copied rows", "differ from the source", wrong, fine)


def _same_rows(
    checkpoint: Checkpoint,
    source: Checkpoint,
    matrix: VocabMatrix,
    name: str,
    provenance: Provenance,
    copied: np.ndarray,
) -> bool:
    before = name if name in source.tensors else source.matrices[0].names[0]
    new, old = checkpoint.raw_rows(name, matrix.axis), source.raw_rows(before, matrix.axis)
    blocks = (copied[start : start + _BLOCK_ROWS] for start in range(0, len(copied), _BLOCK_ROWS))
    return all(np.array_equal(new[ids], old[provenance.source_of[ids]]) for ids in blocks)


def _equal(first: Checkpoint, second: Checkpoint, name: str) -> bool:
    a, b = first.tensors[name], second.tensors[name]
    same = (a.dtype, a.shape) == (b.dtype, b.shape)
    return same and all(x == y for x, y in zip(first.blocks(name), second.blocks(name), strict=True))
