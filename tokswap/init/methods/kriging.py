"""A ridge from a token's parts and its donor row to its source row, corrected by what its neighbours' residuals say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from tokswap.checkpoint.embeddings import EmbeddingSpace
from tokswap.init.base import Problem, option

_BLOCK = 2048
_TESTED = 512


@dataclass(frozen=True)
class Kriging:
    """Regression kriging over the donor's space.

    The trend is a ridge regression from [first piece row, last piece row, donor row] to the source row. Its training
    pairs are the shared tokens that the source's own tokenizer makes of two others. What the trend leaves of the
    shared tokens is a Gaussian process over their centred donor rows, with the kernel exp((cosine - 1) / scale); a
    new token gets its mean given the `neighbours` nearest shared tokens. The nugget draws tokens without near
    neighbours back to the trend. The best guess of a row is shorter than the row, and a short output row is predicted
    too rarely: `restore` puts back a share of the length that shared tokens lose when they are guessed without
    themselves.
    """

    neighbours: int = option(64, "shared tokens that correct a new one", least=1)
    scale: float = option(0.5, "how fast likeness falls with the cosine distance", least=1e-3)
    nugget: float = option(0.3, "share of a residual that neighbours say nothing about", least=1e-6)
    ridge: float = option(0.003, "added to the trend's Gram matrix, as a share of its mean diagonal", least=0.0)
    restore: float = option(
        0.5, "how much of the length lost by guessing is put back: 0 nothing, 1 all", least=0.0, most=1.0
    )

    summary: ClassVar[str] = "composition ridge, corrected by a Gaussian process over the donor's space"
    source: ClassVar[str] = "regression kriging (Hengl et al. 2007), applied to embedding rows by this project"
    needs_donor: ClassVar[bool] = True

    def __call__(self, problem: Problem) -> np.ndarray:
        """Return float32[M, D]."""
        from tokswap.init.methods._sparse import combine_pieces

        anchors = problem.anchors
        assert problem.donor is not None
        if len(anchors) < 2:
            problem.notes.append(
                f"kriging: {len(anchors)} usable shared tokens are too few; new tokens are piece means"
            )
            return combine_pieces(problem)
        trend = _Trend(problem, self.ridge)
        made = self._around(problem)
        residual = problem.source.rows(problem.alignment.source_of[anchors])
        length = np.linalg.norm(residual[made.tested], axis=1)
        residual -= trend(anchors, *_halves(problem, anchors))
        guess = trend(anchors[made.tested], *(half[made.tested] for half in _halves(problem, anchors)))
        _add(guess, made.tested_places, made.tested_weights, residual)
        lost = length / np.maximum(np.linalg.norm(guess, axis=1), np.finfo(np.float32).tiny)
        result = trend(problem.missing, *_ends(problem))
        _add(result, made.places, made.weights, residual)
        result *= np.float32(1 + self.restore * float(np.clip(np.median(lost) - 1, 0, 1)))
        return result

    def _around(self, problem: Problem) -> _Around:
        """Neighbours and weights; they depend on the donor's rows alone, so that the tables of one run share them."""
        key = (self, id(problem.donor))
        if key not in problem.cache:
            donor, anchors = problem.donor, problem.anchors
            assert donor is not None
            centre = donor.mean(anchors)
            keys = EmbeddingSpace.from_array(donor.vocabulary, donor.rows(anchors) - centre)
            queries = EmbeddingSpace.from_array(donor.vocabulary, donor.rows(problem.missing) - centre)
            tested = np.unique(np.linspace(0, len(anchors) - 1, _TESTED).astype(np.int64))
            problem.cache[key] = _Around(
                *self._weights(problem, queries, np.arange(len(problem.missing)), keys),
                tested,
                *self._weights(problem, keys, tested, keys, without=tested),
            )
        return cast(_Around, problem.cache[key])

    def _weights(
        self,
        problem: Problem,
        queries: EmbeddingSpace,
        ids: np.ndarray,
        keys: EmbeddingSpace,
        without: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the places of each query's neighbours, int64[n, k], and their kriging weights, float32[n, k].

        without: the key that each query must not see, int64[n].
        """
        import torch

        from tokswap.init.methods._sparse import nearest, unit

        places, cosines = nearest(
            queries,
            ids,
            keys,
            np.arange(len(keys)),
            self.neighbours + (without is not None),
            memory=problem.memory,
            device=problem.device,
        )
        if without is not None:
            others = np.argsort(places == without[:, None], axis=1, kind="stable")[:, :-1]
            places, cosines = np.take_along_axis(places, others, 1), np.take_along_axis(cosines, others, 1)
        count = places.shape[1]
        weights = np.empty(places.shape, np.float32)
        step = max(1, min(_BLOCK, problem.memory // (8 * count * (count + keys.width))))
        for begin in range(0, len(places), step):
            part = slice(begin, begin + step)
            rows = unit(keys.rows(places[part].reshape(-1))).reshape(-1, count, keys.width)
            block = torch.from_numpy(rows).to(problem.device).double()
            kernel = torch.exp((block @ block.transpose(1, 2) - 1) / self.scale)
            kernel += self.nugget * torch.eye(count, dtype=kernel.dtype, device=kernel.device)
            near = torch.exp((torch.from_numpy(cosines[part]).to(problem.device).double() - 1) / self.scale)
            # By Cholesky: the batched LU of torch 2.13 (`linalg.solve`) is wrong here with several threads and k > 128.
            lower = torch.linalg.cholesky(kernel)
            weights[part] = torch.cholesky_solve(near.unsqueeze(2), lower).squeeze(2).float().cpu().numpy()
        return places, weights

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """The trend's Gram matrix, the search for neighbours, and a small system for each token."""
        k = min(self.neighbours, anchors)
        return 2.0 * anchors * (3 * width) ** 2 + missing * (2.0 * anchors * width + 2.0 * k * k * (width + k))


@dataclass(frozen=True)
class _Around:
    """The neighbours of the missing tokens and of some anchors, and what each of them counts.

    places, weights: [M, k]. tested: int64[T], places of the anchors that are guessed without themselves.
    """

    places: np.ndarray
    weights: np.ndarray
    tested: np.ndarray
    tested_places: np.ndarray
    tested_weights: np.ndarray


def _add(result: np.ndarray, places: np.ndarray, weights: np.ndarray, residual: np.ndarray) -> None:
    for begin in range(0, len(result), _BLOCK):
        part = slice(begin, begin + _BLOCK)
        result[part] += np.einsum("mk,mkd->md", weights[part], residual[places[part]])


class _Trend:
    """Ridge regression from the rows of a token's ends and its donor row to its source row."""

    def __init__(self, problem: Problem, ridge: float) -> None:
        from scipy.linalg import solve

        self.problem = problem
        assert problem.donor is not None
        anchors = problem.anchors
        self.donor_mean = problem.donor.mean(anchors)
        self.mean = problem.source.mean(problem.alignment.source_of[anchors])
        width = 2 * problem.source.width + problem.donor.width
        gram = np.zeros((width, width), np.float64)
        cross = np.zeros((width, problem.source.width), np.float64)
        first, last = _halves(problem, anchors)
        pairs = np.flatnonzero(first >= 0)
        if len(pairs) < width // 4:
            pairs = np.arange(len(anchors))
        for begin in range(0, len(pairs), _BLOCK):
            part = pairs[begin : begin + _BLOCK]
            features = self._features(anchors[part], first[part], last[part])
            gram += features.T @ features
            cross += features.T @ (problem.source.rows(problem.alignment.source_of[anchors[part]]) - self.mean)
        # The least ridge is what rounding needs in directions that no shared token has.
        gram += max(ridge, 1e-9) * max(np.trace(gram) / width, 1e-30) * np.eye(width)
        self.matrix = np.asarray(solve(gram, cross, assume_a="pos"), np.float32)

    def _features(self, ids: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        problem = self.problem
        assert problem.donor is not None
        ends = [
            np.where(end[:, None] >= 0, problem.source.rows(np.maximum(end, 0)) - self.mean, 0) for end in (first, last)
        ]
        return np.concatenate([*ends, problem.donor.rows(ids) - self.donor_mean], axis=1).astype(np.float32)

    def __call__(self, ids: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Return the trend, float32[n, D], of target ids whose ends are these source ids (-1: the mean row)."""
        result = np.empty((len(ids), len(self.mean)), np.float32)
        for begin in range(0, len(ids), _BLOCK):
            part = slice(begin, begin + _BLOCK)
            result[part] = self.mean + self._features(ids[part], first[part], last[part]) @ self.matrix
        return result


def _ends(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last piece of each missing token, int64[M]; -1 for a token without pieces."""
    start, spelt = problem.pieces.start, np.diff(problem.pieces.start) > 0
    first, last = np.full(len(spelt), -1), np.full(len(spelt), -1)
    first[spelt], last[spelt] = problem.pieces.ids[start[:-1][spelt]], problem.pieces.ids[start[1:][spelt] - 1]
    return first, last


def _halves(problem: Problem, anchors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two source tokens that the source's tokenizer makes each anchor of, int64[N]; -1 where it is no pair."""
    if problem.merge_pairs is None:
        return np.full(len(anchors), -1), np.full(len(anchors), -1)
    halves = problem.merge_pairs[problem.alignment.source_of[anchors]]
    return halves[:, 0], halves[:, 1]
