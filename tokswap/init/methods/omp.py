"""Orthogonal matching pursuit over the shared tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tokswap.checkpoint.embeddings import row_norms
from tokswap.errors import InputError
from tokswap.init.base import DonorUse, Initializer, Problem, Rows, Sizes
from tokswap.init.made_rows import MadeRows
from tokswap.options.declare import option
from tokswap.tokenizer.vocabulary import Kind

if TYPE_CHECKING:
    from tokswap.init.pursuit.code import SparseCode

_PART, _LEAST_PART = 16384, 2048


@dataclass(frozen=True)
class OMP(Initializer):
    """A new token mixes the source rows of a few shared tokens, as their donor rows mix to its own donor row.

    The atoms are the donor rows of the shared tokens, scaled to norm 1 for the selection, without exact duplicates and
    untrained rows. `k` is at most the number of atoms and the donor's width. A new token whose donor row is zero gets
    the mean source row. By default atoms are found in rounds that also drop them again, which is faster than textbook
    OMP (`exact`) and explains the donor rows as well.
    """

    k: int = option(64, "most atoms per token", least=1)
    exact: bool = option(False, "textbook OMP: search the whole dictionary before every step (about 8 times slower)")
    tolerance: float = option(1e-3, "stop when this share of a donor row is left unexplained", least=0.0, most=1.0)
    ridge: float = option(0.0, "added to the Gram matrix of the final least squares", least=0.0)
    centre: bool = option(False, "subtract the mean donor row first, and add the mean source row")
    anchor_filter: bool = option(True, "leave out shared tokens whose donor rows look untrained")
    norm_guard: bool = option(True, "bring the norm of new rows into the range of the shared tokens' rows")

    summary: ClassVar[str] = "sparse code over the donor's shared tokens, carried over to the source"
    reference: ClassVar[str] = "arXiv 2506.06607"

    def donor_use(self) -> DonorUse:
        """Require the donor."""
        return "required"

    def __call__(self, problem: Problem) -> Rows:
        """Mix the source rows; the diagnostics are residual, coefficient_norm and support.

        Raises:
            InputError: no-anchor.
        """
        from tokswap.init.methods._combine import combine

        assert problem.donor is not None
        # Matrices that share a donor matrix share the dictionary work: only the rows that are mixed differ.
        key, cache = ("omp", problem.donor.name, self), problem.context.cache
        if key not in cache:
            cache[key] = self._code(problem)
        code: _Code = cache[key]
        source_ids = problem.alignment.source_of[code.anchors]
        centre = problem.source.mean(source_ids) if self.centre else None
        low, high = np.percentile(problem.source.norms(source_ids), [0.5, 99.5]) if self.norm_guard else (0, np.inf)
        zero = code.diagnostics["support"] == 0

        def make(part: slice) -> np.ndarray:
            weights = code.weights[part]
            rows = combine(problem.source, source_ids[code.atoms[part]], weights)
            if centre is not None:
                rows += centre - weights.sum(axis=1, keepdims=True) * centre
            if self.norm_guard:
                norms = np.maximum(row_norms(rows)[:, None], np.finfo(np.float32).tiny)
                rows *= np.clip(norms, low, high) / norms
            if zero[part].any():
                rows[zero[part]] = problem.source_mean
            return np.asarray(rows, np.float32)

        return Rows(MadeRows(len(zero), problem.source.width, make), code.diagnostics)

    def _code(self, problem: Problem) -> _Code:
        """Code the missing tokens' donor rows."""
        donor, anchors, context = problem.donor, self._atoms(problem), problem.context
        assert donor is not None
        if not len(anchors):
            raise InputError(
                "no-anchor",
                "no shared token has a usable donor row, so there is nothing to build new rows from",
                "check that --donor belongs to the target tokenizer, or use --init subword",
            )
        centre = donor.mean(anchors) if self.centre else np.zeros(donor.width, np.float32)
        dictionary = _less(donor.rows(anchors), centre)
        norms = np.maximum(row_norms(dictionary), np.finfo(np.float32).tiny)
        dictionary /= norms[:, None]
        size = min(_PART, max(_LEAST_PART, context.memory // (8 * donor.width)))
        size = context.backend.part(len(problem.missing), size)
        starts = range(0, max(len(problem.missing), 1), size)
        targets = (_less(donor.rows(problem.missing[start : start + size]), centre) for start in starts)
        shared = _Shared(dictionary, self, memory=context.memory, device=context.device)
        parts = []
        with context.bar(len(problem.missing), f"omp, {problem.matrix.role} rows") as bar:
            for code in context.backend.map(_pursue, targets, shared, bar.update):
                coefficient_norm = np.linalg.norm(code.weights, axis=1)
                weights = code.weights / norms[code.atoms]
                support = code.support.astype(np.float32)
                parts.append((code.atoms.astype(np.int32), weights, code.residual, coefficient_norm, support))
        atoms, weights, *found = (np.concatenate(column) for column in zip(*parts, strict=True))
        diagnostics = dict(zip(("residual", "coefficient_norm", "support"), found, strict=True))
        return _Code(anchors, atoms=atoms, weights=weights, diagnostics=diagnostics)

    def _atoms(self, problem: Problem) -> np.ndarray:
        """Return the anchors with distinct, trained donor rows, int64 [N]."""
        donor, anchors = problem.donor, problem.anchors
        assert donor is not None
        seen: set[int] = set()
        keep = np.zeros(len(anchors), bool)
        reserved = np.flatnonzero(donor.vocabulary.kind == Kind.UNUSED)
        centre, reach = np.zeros(donor.width, np.float32), -1.0
        if self.anchor_filter and len(reserved) >= 8:
            # Reserved rows show what untrained rows look like: anchors within their cloud are untrained too.
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
        return np.asarray(anchors[keep])

    def held(self, sizes: Sizes) -> int:
        """Count kernels, the dictionary in float32 and bfloat16, a part of the targets, and the codes."""
        part = min(4 * min(sizes.missing, _PART) * sizes.donor_width, sizes.work)
        dictionary = 6 * sizes.anchors * sizes.donor_width
        return 130_000_000 + dictionary + part + 16 * self.k * sizes.missing + sizes.work

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """Count searches of the dictionary, as measured for k = 64 (benchmarks/omp.md)."""
        share = min(self.k, anchors, width) / 64
        sweeps = 25.0 * share if self.exact else 1.5 + 1.5 * share
        return 2.0 * sweeps * missing * anchors * width


@dataclass(frozen=True)
class _Code:
    """Sparse codes of the missing tokens.

    Attributes:
        anchors: Target ids of the atoms, int64 [N].
        atoms: Places in `anchors`, int32 [M, k].
        weights: Weights of the atoms' raw donor rows, float32 [M, k].
        diagnostics: Residual, norm of the coefficients and size of the support, float32 [M] each.
    """

    anchors: np.ndarray
    atoms: np.ndarray
    weights: np.ndarray
    diagnostics: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class _Shared:
    """What all parts of the work need.

    Attributes:
        dictionary: Atoms of norm 1, float32 [N, D].
        method: The settings.
        memory: Bytes that a batch may take.
        device: Where torch computes.
    """

    dictionary: np.ndarray
    method: OMP
    memory: int
    device: str


def _pursue(shared: _Shared, targets: np.ndarray, done: Callable[[int], object]) -> SparseCode:
    """Code a part of the targets, float32 [n, D]. May run in another process."""
    from tokswap.init.pursuit.solve import orthogonal_matching_pursuit

    method = shared.method
    return orthogonal_matching_pursuit(
        _writeable(shared.dictionary),
        targets,
        method.k,
        exact=method.exact,
        tolerance=method.tolerance,
        ridge=method.ridge,
        memory=shared.memory,
        device=shared.device,
        done=done,
    )


def _less(rows: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Subtract a row from all rows, in place."""
    rows -= centre
    return rows


def _writeable(rows: np.ndarray) -> np.ndarray:
    """Return a read-only array that several processes share as a writeable one, as the compiled kernels take it.

    Nothing writes to it.
    """
    if rows.flags.writeable:
        return rows
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(rows).numpy()
