"""Numba kernels of both pursuits, parallel over targets. They check nothing: their callers pass what fits.

Rows of the dictionary lie apart in memory, so a kernel first copies those that a target needs several times.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from tokswap.compiled import kept_njit

RANK_GUARD = 1e-3
"""Textbook OMP refuses an atom (of norm 1) whose part outside the span of the support has no larger norm than this."""
ROUND_GUARD = 1e-2
"""The same for rounds, whose inverse Gram matrix holds fewer digits than an orthonormal basis."""
_FASTMATH = {"reassoc", "contract", "nsz", "arcp"}


@njit(fastmath=_FASTMATH)  # type: ignore[untyped-decorator]
def _dot(a: np.ndarray, b: np.ndarray) -> Any:
    total = np.float32(0)
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@njit(fastmath=_FASTMATH)  # type: ignore[untyped-decorator]
def _dots(rows: np.ndarray, count: int, vector: np.ndarray, products: np.ndarray) -> None:
    """Write the products of the first rows with a vector, four at a time."""
    i = 0
    while i + 4 <= count:
        a = b = c = d = np.float32(0)
        for x in range(vector.shape[0]):
            value = vector[x]
            a += rows[i, x] * value
            b += rows[i + 1, x] * value
            c += rows[i + 2, x] * value
            d += rows[i + 3, x] * value
        products[i], products[i + 1], products[i + 2], products[i + 3] = a, b, c, d
        i += 4
    while i < count:
        products[i] = _dot(rows[i], vector)
        i += 1


@njit(fastmath=_FASTMATH)  # type: ignore[untyped-decorator]
def _subtract(rows: np.ndarray, count: int, weights: np.ndarray, vector: np.ndarray) -> None:
    """Subtract the weighted sum of the first rows from a vector, four at a time."""
    i = 0
    while i + 4 <= count:
        a, b = np.float32(weights[i]), np.float32(weights[i + 1])
        c, d = np.float32(weights[i + 2]), np.float32(weights[i + 3])
        for x in range(vector.shape[0]):
            vector[x] -= a * rows[i, x] + b * rows[i + 1, x] + c * rows[i + 2, x] + d * rows[i + 3, x]
        i += 4
    while i < count:
        a = np.float32(weights[i])
        for x in range(vector.shape[0]):
            vector[x] -= a * rows[i, x]
        i += 1


@njit(fastmath=_FASTMATH)  # type: ignore[untyped-decorator]
def _times(matrix: np.ndarray, count: int, vector: np.ndarray, product: np.ndarray) -> None:
    """Write the product of the upper left part of a matrix with a vector, in float64."""
    for i in range(count):
        total = 0.0
        for j in range(count):
            total += matrix[i, j] * vector[j]
        product[i] = total


@njit(fastmath=_FASTMATH)  # type: ignore[untyped-decorator]
def _copied(dictionary: np.ndarray, ids: np.ndarray, rows: np.ndarray) -> None:
    for i in range(ids.shape[0]):
        for x in range(rows.shape[1]):
            rows[i, x] = dictionary[ids[i], x]


@njit(fastmath=_FASTMATH)  # type: ignore[untyped-decorator]
def _orthogonalise(atom: np.ndarray, basis: np.ndarray, upper: np.ndarray, support: int) -> Any:
    """Write the part of an atom outside the span of the support to the next row of the basis; return its norm.

    Column `support` of the triangular factor `upper` gets the parts inside. A second pass follows where the first one
    cancels too much.
    """
    new = basis[support]
    for d in range(atom.shape[0]):
        new[d] = atom[d]
    for _ in range(2):
        before = _dot(new, new)
        for i in range(support):
            share = _dot(basis[i], new)
            for d in range(atom.shape[0]):
                new[d] -= share * basis[i, d]
            upper[i, support] += share
        if _dot(new, new) > 0.5 * before:
            break
    height = np.sqrt(_dot(new, new))
    if height <= RANK_GUARD:
        for i in range(support):
            upper[i, support] = 0
    else:
        for d in range(atom.shape[0]):
            new[d] /= height
        upper[support, support] = height
    return height


@kept_njit(parallel=True, fastmath=_FASTMATH)
def step(
    dictionary: np.ndarray,
    active: np.ndarray,
    residuals: np.ndarray,
    bases: np.ndarray,
    uppers: np.ndarray,
    projections: np.ndarray,
    atoms: np.ndarray,
    supports: np.ndarray,
    going: np.ndarray,
    shortlists: np.ndarray,
    tolerance: float,
) -> None:
    """Add the best atom of its shortlist to the support of each active target.

    Args:
        dictionary: Atoms of norm 1, float32 [N, D].
        active: Those that are not done, int64 [B]. The next arrays are those of all targets, and are updated.
        residuals: float32 [T, D].
        bases: float32 [T, k, D].
        uppers: float32 [T, k, k].
        projections: float32 [T, k].
        atoms: int64 [T, k].
        supports: int64 [T].
        going: bool [T]; becomes False where no atom helps, at k atoms and at the tolerance.
        shortlists: Atoms to choose from, int32 [B, S].
        tolerance: Norm of a residual that is small enough.
    """
    for n in prange(active.shape[0]):
        t = active[n]
        residual, support = residuals[t], supports[t]
        best, at = np.float32(0), -1
        for m in range(shortlists.shape[1]):
            value = abs(_dot(dictionary[shortlists[n, m]], residual))
            if value > best:
                best, at = value, shortlists[n, m]
        if at < 0 or _orthogonalise(dictionary[at], bases[t], uppers[t], support) <= RANK_GUARD:
            going[t] = False
            continue
        projection = _dot(bases[t, support], residual)
        for d in range(residual.shape[0]):
            residual[d] -= projection * bases[t, support, d]
        projections[t, support], atoms[t, support] = projection, at
        supports[t] = support + 1
        going[t] = support + 1 < atoms.shape[1] and _dot(residual, residual) > tolerance * tolerance


@njit(fastmath=_FASTMATH)  # type: ignore[untyped-decorator]
def _add(
    near: np.ndarray,
    shortlist: np.ndarray,
    rows: np.ndarray,
    residual: np.ndarray,
    atoms: np.ndarray,
    weights: np.ndarray,
    inverse: np.ndarray,
    support: int,
    most: int,
    enough: float,
) -> int:
    """Add the best atoms of the shortlist, one after the other; return the size of the support."""
    size = near.shape[0]
    correlation = np.empty(size, np.float32)
    gram, inside = np.empty(rows.shape[0], np.float32), np.empty(rows.shape[0])
    open_ = np.ones(size, np.bool_)
    for _ in range(most):
        _dots(near, size, residual, correlation)
        best, at = np.float32(0), -1
        for m in range(size):
            if open_[m] and abs(correlation[m]) > best:
                best, at = abs(correlation[m]), m
        if at < 0:
            break
        open_[at] = False
        atom = near[at]
        _dots(rows, support, atom, gram)
        _times(inverse, support, gram, inside)
        height = 1.0
        for i in range(support):
            height -= gram[i] * inside[i]
        if height <= ROUND_GUARD * ROUND_GUARD:
            continue
        for i in range(support):
            share = inside[i] / height
            for j in range(support):
                inverse[i, j] += share * inside[j]
            inverse[i, support] = inverse[support, i] = -share
        inverse[support, support] = 1 / height
        weights[support] = 0.0
        inside[support] = -1.0
        weight = correlation[at] / height
        for i in range(support + 1):
            inside[i] *= -weight
            weights[i] += inside[i]
        for d in range(atom.shape[0]):
            rows[support, d] = atom[d]
        atoms[support] = shortlist[at]
        support += 1
        _subtract(rows, support, inside, residual)
        if _dot(residual, residual) <= enough:
            break
    return support


@njit(fastmath=_FASTMATH)  # type: ignore[untyped-decorator]
def _drop(
    rows: np.ndarray,
    atoms: np.ndarray,
    weights: np.ndarray,
    inverse: np.ndarray,
    support: int,
    most: int,
    left: float,
    enough: float,
) -> int:
    """Drop the atoms that cost least until `most` are left, and then those that are not needed to leave `enough`.

    The last atom moves to the place of one that is dropped. Returns the size of the support.
    """
    while support > 0:
        cost, at = np.inf, -1
        for i in range(support):
            own = weights[i] * weights[i] / inverse[i, i]
            if own < cost:
                cost, at = own, i
        if support <= most and left + cost > enough:
            break
        left += cost
        for i in range(support):
            if i != at:
                share = inverse[i, at] / inverse[at, at]
                weights[i] -= share * weights[at]
                for j in range(support):
                    inverse[i, j] -= share * inverse[at, j]
        support -= 1
        if at < support:
            atoms[at], weights[at] = atoms[support], weights[support]
            for d in range(rows.shape[1]):
                rows[at, d] = rows[support, d]
            for i in range(support + 1):
                inverse[at, i] = inverse[support, i]
            for i in range(support + 1):
                inverse[i, at] = inverse[i, support]
    return support


@njit(fastmath=_FASTMATH)  # type: ignore[untyped-decorator]
def _fit(
    rows: np.ndarray,
    target: np.ndarray,
    residual: np.ndarray,
    weights: np.ndarray,
    inverse: np.ndarray,
    support: int,
) -> None:
    """Compute the residual from the weights, and correct both once by what still lies in the span."""
    still, correction = np.empty(rows.shape[0], np.float32), np.empty(rows.shape[0])
    residual[:] = target
    _subtract(rows, support, weights, residual)
    _dots(rows, support, residual, still)
    _times(inverse, support, still, correction)
    for i in range(support):
        weights[i] += correction[i]
    residual[:] = target
    _subtract(rows, support, weights, residual)


@kept_njit(parallel=True, fastmath=_FASTMATH)
def refine(
    dictionary: np.ndarray,
    targets: np.ndarray,
    active: np.ndarray,
    residuals: np.ndarray,
    atoms: np.ndarray,
    weights: np.ndarray,
    inverses: np.ndarray,
    supports: np.ndarray,
    going: np.ndarray,
    shortlists: np.ndarray,
    most: int,
    kept: int,
    tolerance: float,
) -> None:
    """Add atoms to the support of each active target and drop others. `rounds` explains how.

    Args:
        dictionary: Atoms of norm 1, float32 [N, D].
        targets: float32 [T, D].
        active: Those that are not done, int64 [B]. The next arrays are those of all targets, and are updated.
        residuals: float32 [T, D].
        atoms: int64 [T, K].
        weights: float64 [T, K].
        inverses: Inverse Gram matrices, float64 [T, K, K].
        supports: int64 [T].
        going: bool [T]; becomes False at the tolerance.
        shortlists: Atoms to choose from, int32 [B, S].
        most: How many atoms to add. They fit into K besides the support.
        kept: Size of the support afterwards, at most.
        tolerance: Norm of a residual that is small enough.
    """
    enough = tolerance * tolerance
    for n in prange(active.shape[0]):
        t = active[n]
        rows = np.empty((atoms.shape[1], dictionary.shape[1]), np.float32)
        near = np.empty((shortlists.shape[1], dictionary.shape[1]), np.float32)
        residual, support = residuals[t], supports[t]
        _copied(dictionary, atoms[t, :support], rows)
        _copied(dictionary, shortlists[n], near)
        support = _add(near, shortlists[n], rows, residual, atoms[t], weights[t], inverses[t], support, most, enough)
        left = _dot(residual, residual)
        support = _drop(rows, atoms[t], weights[t], inverses[t], support, kept, left, enough)
        _fit(rows, targets[t], residual, weights[t], inverses[t], support)
        supports[t] = support
        going[t] = _dot(residual, residual) > enough
