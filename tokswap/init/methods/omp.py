"""Orthogonal matching pursuit over the shared tokens (arXiv 2506.06607)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tokswap.checkpoint.embeddings import row_norms
from tokswap.errors import InputError
from tokswap.init.base import Problem, option
from tokswap.tokenizer.vocabulary import Kind

if TYPE_CHECKING:
    from tokswap.init.methods._pursuit import SparseCode

_PART = 16384


@dataclass(frozen=True)
class OMP:
    """Writes each new token's donor row as a few donor rows of shared tokens, and mixes their source rows alike.

    Atoms are the donor rows of the shared tokens, of unit length for the selection, without exact duplicates and
    without untrained rows. `k` above the number of atoms or the donor's width is the same as that number.
    A new token whose donor row is zero becomes the mean source row.
    """

    k: int = option(64, "atoms a token at most", least=1)
    exact: bool = option(False, "textbook OMP: sweep the whole dictionary before every step (about 3 times slower)")
    tolerance: float = option(1e-3, "stop when this share of a donor row is left unexplained", least=0.0, most=1.0)
    ridge: float = option(0.0, "added to the Gram matrix of the final least squares", least=0.0)
    centre: bool = option(False, "subtract the mean donor row first, and work round the mean source row")
    anchor_filter: bool = option(True, "leave out shared tokens whose donor rows look untrained")
    norm_guard: bool = option(True, "bring the length of new rows into the range of the shared tokens' rows")

    summary: ClassVar[str] = "sparse code over the donor's shared tokens, carried over to the source"
    source: ClassVar[str] = "arXiv 2506.06607"
    needs_donor: ClassVar[bool] = True

    def __call__(self, problem: Problem) -> np.ndarray:
        """Return float32[M, D]; leaves residual, coefficient_norm and support in `problem.details`."""
        from tokswap.init.methods._sparse import combine

        # Tables that share a donor table share the dictionary work: only the rows that are mixed differ.
        key = ("omp", id(problem.donor))
        if key not in problem.cache:
            problem.cache[key] = self._code(problem)
        anchors, atoms, weights, details = problem.cache[key]
        source_ids = problem.alignment.source_of[anchors]
        rows = combine(problem.source, source_ids[atoms], weights)
        if self.centre:
            centre = problem.source.mean(source_ids)
            rows += centre - weights.sum(axis=1, keepdims=True) * centre
        if self.norm_guard:
            low, high = np.percentile(problem.source.norms(source_ids), [0.5, 99.5])
            norms = np.maximum(row_norms(rows)[:, None], np.finfo(np.float32).tiny)
            rows *= np.clip(norms, low, high) / norms
        zero = details["support"] == 0
        if zero.any():
            rows[zero] = problem.source_mean
        problem.details.update(details)
        return np.asarray(rows, np.float32)

    def _code(self, problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Return anchors int64[N], atoms int32[M, k], weights float32[M, k] of raw donor rows, and the details."""
        from tqdm import tqdm

        donor, anchors = problem.donor, self._atoms(problem)
        assert donor is not None
        if not len(anchors):
            raise InputError(
                "no-anchor",
                "no shared token has a usable donor row, so there is nothing to build new rows from",
                "check that --donor belongs to the target tokenizer, or use --init subword",
            )
        dictionary = donor.rows(anchors)
        centre = dictionary.mean(axis=0) if self.centre else np.zeros(donor.width, np.float32)
        dictionary -= centre
        length = np.maximum(row_norms(dictionary), np.finfo(np.float32).tiny)
        dictionary /= length[:, None]
        size = problem.backend.part(len(problem.missing), _PART)
        targets = (  # a part's rows in float32 at a time
            donor.rows(problem.missing[start : start + size]) - centre
            for start in range(0, max(len(problem.missing), 1), size)
        )
        parts = []
        with tqdm(
            total=len(problem.missing),
            desc=f"omp, {problem.role} rows",
            unit=" tokens",
            disable=None if problem.progress else True,
        ) as bar:
            shared = _Shared(dictionary, self, problem.memory, problem.device)
            for code in problem.backend.map(_pursue, targets, shared, bar.update):
                norm = np.linalg.norm(code.weights, axis=1)
                weights = code.weights / length[code.atoms]
                parts.append(
                    (code.atoms.astype(np.int32), weights, code.residual, norm, code.support.astype(np.float32))
                )
        atoms, weights, residual, norm, support = (np.concatenate(column) for column in zip(*parts, strict=True))
        return anchors, atoms, weights, {"residual": residual, "coefficient_norm": norm, "support": support}

    def _atoms(self, problem: Problem) -> np.ndarray:
        """Anchors with distinct, trained donor rows, int64[N]."""
        donor, anchors = problem.donor, problem.anchors
        assert donor is not None
        seen: set[int] = set()
        keep = np.zeros(len(anchors), bool)
        reserved = np.flatnonzero(donor.vocabulary.kind == Kind.UNUSED)
        centre, reach = np.zeros(donor.width, np.float32), -1.0
        if self.anchor_filter and len(reserved) >= 8:
            # Reserved rows show what no training looks like: anchors within their cloud have learnt nothing either.
            centre = donor.mean(reserved)
            away = [np.linalg.norm(block - centre, axis=1) for block in donor.blocks(reserved)]
            reach = float(np.percentile(np.concatenate(away), 90))
        at = 0
        for block in donor.blocks(anchors):
            trained = np.linalg.norm(block - centre, axis=1) > reach
            for n, row in enumerate(block):
                digest = hash(row.tobytes())
                keep[at + n] = trained[n] and digest not in seen
                seen.add(digest)
            at += len(block)
        return anchors[keep]

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """In sweeps over the dictionary, as measured for k = 64 (benchmarks/omp.md)."""
        sweeps = (27.0 if self.exact else 7.0) * min(self.k, anchors, width) / 64
        return 2.0 * sweeps * missing * anchors * width


@dataclass(frozen=True)
class _Shared:
    """What all parts need. dictionary: float32[N, D], rows of length 1."""

    dictionary: np.ndarray
    method: OMP
    memory: int
    device: str


def _pursue(shared: _Shared, targets: np.ndarray, done: Callable[[int], object]) -> SparseCode:
    """Code a part of the targets, float32[n, D], in whatever process this is."""
    from tokswap.init.methods._pursuit import orthogonal_matching_pursuit

    method = shared.method
    return orthogonal_matching_pursuit(
        _plain(shared.dictionary),
        targets,
        method.k,
        exact=method.exact,
        tolerance=method.tolerance,
        ridge=method.ridge,
        memory=shared.memory,
        device=shared.device,
        done=done,
    )


def _plain(rows: np.ndarray) -> np.ndarray:
    """Take off the mark of an array that several processes read. Nothing writes to it; the kernels are compiled without it."""
    if rows.flags.writeable:
        return rows
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(rows).numpy()
