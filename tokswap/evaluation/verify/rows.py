"""Checks on the rows of a loaded model alone: none is zero, non-finite or far too large."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tokswap.errors import count_of
from tokswap.evaluation.checks import Check
from tokswap.evaluation.verify.folder import Folder
from tokswap.evaluation.verify.weights import Weights
from tokswap.report.provenance import Provenance
from tokswap.report.wording import listed

_TIMES_LARGEST = 3.0
"""A norm is too large if it is this many times the largest norm of a copied row."""
_TIMES_MEDIAN = 100.0
"""The same for the median norm, if it is not known which rows were copied."""
_BLOCK_ROWS = 8192


def row_checks(folder: Folder, weights: Weights, provenance: Provenance) -> Iterator[Check]:
    """Check that no row of an embedding matrix is zero, non-finite or far too large.

    Rows that nothing reads may be anything, unless tokswap computed them: the row of the pad token, and padding rows.

    Args:
        folder: The folder.
        weights: Its weights.
        provenance: Where its rows come from.
    """
    import torch

    known = len(provenance.source_of) == weights.rows
    copied = provenance.source_of >= 0 if known else np.zeros(weights.rows, bool)
    idle = _idle(folder, weights.rows) & (copied if known else True)
    for role, matrix in weights.embeddings.items():
        if len(matrix) == weights.rows:
            blocks = [block.float().norm(dim=1) for block in matrix.detach().split(_BLOCK_ROWS)]
            yield from _norm_checks(f"{role} rows", torch.cat(blocks).cpu().numpy(), copied, idle)


def _idle(folder: Folder, rows: int) -> np.ndarray:
    """The rows that are no token's, or the pad token's (bool [V])."""
    tokens = np.zeros(rows, bool)
    ids = [token for token, text in enumerate(folder.vocabulary[:rows]) if text is not None]
    tokens[ids] = True
    config = folder.defaults
    pads = [config.get("pad_token_id"), folder.tokenizer.pad_token_id]
    tokens[[pad for pad in pads if type(pad) is int and 0 <= pad < rows]] = False
    return ~tokens


def _norm_checks(name: str, norms: np.ndarray, copied: np.ndarray, idle: np.ndarray) -> Iterator[Check]:
    """Test the norms of one matrix (float32 [V]); copied and idle rows may be zero, idle ones also non-finite."""
    typical = norms[copied & np.isfinite(norms)]
    limit = _TIMES_LARGEST * float(typical.max()) if len(typical) else _TIMES_MEDIAN * float(np.nanmedian(norms))
    problems = {
        "are non-finite": np.flatnonzero(~np.isfinite(norms) & ~idle),
        "are zero": np.flatnonzero((norms == 0) & ~copied & ~idle),
        "have a far too large norm": np.flatnonzero((norms > limit) & ~idle) if limit > 0 else np.zeros(0, np.int64),
    }
    for problem, ids in problems.items():
        if len(ids):
            yield Check(name, False, f"{count_of(len(ids), 'row')} {problem}: {listed(ids.tolist())}")
    if not any(map(len, problems.values())):
        low, median, high = np.nanpercentile(norms, [0, 50, 100])
        yield Check(name, True, f"finite; norms {low:.3g} to {high:.3g}, median {median:.3g}")
