"""A ridge regression from a token's parts and its donor row, corrected by the residuals of its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from tokswap.checkpoint.embeddings import EmbeddingSpace
from tokswap.init.base import DonorUse, Initializer, Problem, Rows, Sizes
from tokswap.init.made_rows import MadeRows
from tokswap.init.methods._normal import NormalEquations
from tokswap.options.declare import option

_BLOCK = 2048
_FEATURES = 1 << 24
"""Most elements of the features that are computed at a time; 64 MB in float32."""
_TESTED = 512
"""Shared tokens that are estimated without themselves, to see how much of a row's norm is lost."""


@dataclass(frozen=True)
class Kriging(Initializer):
    """A new token is a regression estimate, corrected by its neighbours in the donor's space (regression kriging).

    The trend is a ridge regression from [first piece row, last piece row, donor row] to the source row. It is trained
    on the shared tokens that the source tokenizer merges from two others. The residuals of the shared tokens are a
    Gaussian process over their centred donor rows, with the kernel exp((cosine - 1) / scale). A new token gets its
    mean, given the `neighbours` nearest shared tokens. The nugget draws tokens without near neighbours back to the
    trend. An estimated row has a smaller norm than the true row, and a small lm_head row is predicted too rarely. So
    `restore` gives back a share of the norm that shared tokens lose when they are estimated without themselves.
    """

    neighbours: int = option(64, "shared tokens that correct a new token", least=1)
    scale: float = option(0.5, "how slowly likeness falls with the cosine distance", least=1e-3)
    nugget: float = option(0.3, "share of a residual that neighbours say nothing about", least=1e-6)
    ridge: float = option(0.003, "added to the trend's Gram matrix, as a share of its mean diagonal", least=0.0)
    restore: float = option(0.5, "share of the lost norm to give back: 0 is nothing, 1 is all", least=0.0, most=1.0)

    summary: ClassVar[str] = "composition ridge, corrected by a Gaussian process over the donor's space"
    reference: ClassVar[str] = "regression kriging (Hengl et al. 2007), applied to embedding rows by this project"

    def donor_use(self) -> DonorUse:
        """Require the donor."""
        return "required"

    def __call__(self, problem: Problem) -> Rows:
        """Estimate the trend, correct it, and restore the norm."""
        anchors = problem.anchors
        if len(anchors) < 2:
            from tokswap.init.methods._combine import mixed_pieces

            few = f"{len(anchors)} usable shared tokens are too few"
            note = f"kriging: {few}; each new token gets the mean of its pieces"
            return Rows(mixed_pieces(problem), notes=(note,))
        pairs = problem.merge_pairs(anchors)
        around = self._around(problem)
        trend = _Trend(problem, pairs, self.ridge)
        tested = around.tested
        norms = np.linalg.norm(problem.source.rows(problem.alignment.source_of[anchors[tested]]), axis=1)
        estimate = trend.corrected(anchors[tested], pairs[tested], around.of_tested)
        lost = norms / np.maximum(np.linalg.norm(estimate, axis=1), np.finfo(np.float32).tiny)
        scale = np.float32(1 + self.restore * float(np.clip(np.median(lost) - 1, 0, 1)))
        missing, ends = problem.missing, _ends(problem)

        def make(part: slice) -> np.ndarray:
            return trend.corrected(missing[part], ends[part], around.of_missing[part]) * scale

        return Rows(MadeRows(len(missing), problem.source.width, make))

    def _around(self, problem: Problem) -> _Around:
        """Find the neighbours. They depend on donor rows and anchors alone, so several matrices share them."""
        donor, anchors, cache = problem.donor, problem.anchors, problem.context.cache
        assert donor is not None
        key = ("kriging", donor.name, self, anchors.tobytes())
        if key not in cache:
            centre = donor.mean(anchors)
            keys, queries = _Centred(donor, anchors, centre), _Centred(donor, problem.missing, centre)
            tested = np.unique(np.linspace(0, len(anchors) - 1, _TESTED).astype(np.int64))
            cache[key] = _Around(
                of_missing=self._neighbours(problem, queries, np.arange(len(problem.missing)), keys),
                tested=tested,
                of_tested=self._neighbours(problem, keys, tested, keys, without=tested),
            )
        return cast(_Around, cache[key])

    def _neighbours(
        self,
        problem: Problem,
        queries: _Centred,
        ids: np.ndarray,
        keys: _Centred,
        without: np.ndarray | None = None,
    ) -> _Neighbours:
        """Find the nearest keys of each query; `without` is the key that each query must not see, int64 [n]."""
        from tokswap.init.methods._nearest import nearest

        wanted = self.neighbours + (without is not None)
        memory, device = problem.context.memory, problem.context.device
        count = np.arange(len(problem.anchors))
        places, cosines = nearest(queries, ids, keys, count, wanted, memory=memory, device=device)
        if without is not None:
            others = np.argsort(places == without[:, None], axis=1, kind="stable")[:, :-1]
            places, cosines = np.take_along_axis(places, others, 1), np.take_along_axis(cosines, others, 1)
        self._weigh(problem, places, cosines, keys)
        return _Neighbours(places, cosines)

    def _weigh(self, problem: Problem, places: np.ndarray, cosines: np.ndarray, keys: _Centred) -> None:
        """Put the kriging weights of each query's neighbours in the place of their cosines, float32 [n, k]."""
        import torch

        from tokswap.init.methods._nearest import unit

        memory, device = problem.context.memory, problem.context.device
        count = places.shape[1]
        step = max(1, min(_BLOCK, memory // (96 * count * (count + keys.width))))
        for begin in range(0, len(places), step):
            part = slice(begin, begin + step)
            rows = unit(keys.rows(places[part].reshape(-1))).reshape(-1, count, keys.width)
            block = torch.from_numpy(rows).to(device).double()
            kernel = torch.exp((block @ block.transpose(1, 2) - 1) / self.scale)
            kernel += self.nugget * torch.eye(count, dtype=kernel.dtype, device=kernel.device)
            near = torch.exp((torch.from_numpy(cosines[part]).to(device).double() - 1) / self.scale)
            # By Cholesky: the batched LU of torch 2.13 (`linalg.solve`) is wrong here with several threads and k > 128.
            lower = torch.linalg.cholesky(kernel)
            cosines[part] = torch.cholesky_solve(near.unsqueeze(2), lower).squeeze(2).float().cpu().numpy()

    def held(self, sizes: Sizes) -> int:
        """Count neighbours, and the larger of two stages: the search for them, and the trend's normal equations."""
        from tokswap.init.methods._nearest import search_bytes

        features = 2 * sizes.width + sizes.donor_width
        equations = 4 * features**2 + 8 * features * sizes.width
        block = 2 * 4 * min(_FEATURES, _BLOCK * features)
        search = search_bytes(sizes.anchors, sizes.missing, sizes.donor_width, sizes.work)
        return 8 * self.neighbours * sizes.missing + max(search, equations + block)

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """Count the trend's Gram matrix, the search for neighbours, and a small system for each token."""
        k = min(self.neighbours, anchors)
        return 2.0 * anchors * (3 * width) ** 2 + missing * (2.0 * anchors * width + 2.0 * k * k * (width + k))


@dataclass(frozen=True)
class _Neighbours:
    """The nearest anchors of some tokens.

    Attributes:
        places: Places of the anchors, int32 [n, k].
        weights: Their kriging weights, float32 [n, k].
    """

    places: np.ndarray
    weights: np.ndarray

    def __getitem__(self, part: slice) -> _Neighbours:
        """Return those of some of the tokens."""
        return _Neighbours(self.places[part], self.weights[part])


@dataclass(frozen=True)
class _Around:
    """The neighbours of the missing tokens, and of the anchors that are estimated without themselves.

    Attributes:
        of_missing: Neighbours of the missing tokens.
        tested: Places of the tested anchors, int64 [T].
        of_tested: Neighbours of the tested anchors.
    """

    of_missing: _Neighbours
    tested: np.ndarray
    of_tested: _Neighbours


class _Trend:
    """Ridge regression from the rows of a token's first and last piece and its donor row to its source row.

    Args:
        problem: Where the rows are.
        pairs: Merge pairs of the anchors, int [N, 2].
        ridge: Regularisation, as a share of the Gram matrix's mean diagonal.
    """

    def __init__(self, problem: Problem, pairs: np.ndarray, ridge: float) -> None:
        assert problem.donor is not None
        self.source, self.donor = problem.source, problem.donor
        self.anchors, self.pairs = problem.anchors, pairs
        self.source_ids = problem.alignment.source_of[self.anchors]
        self.donor_mean = self.donor.mean(self.anchors)
        self.mean = self.source.mean(self.source_ids)
        width = 2 * self.source.width + self.donor.width
        self.block = max(1, min(_BLOCK, _FEATURES // width))
        equations = NormalEquations(width, self.source.width)
        trained = np.flatnonzero(pairs[:, 0] >= 0)
        if len(trained) < width // 4:
            trained = np.arange(len(self.anchors))
        for begin in range(0, len(trained), self.block):
            part = trained[begin : begin + self.block]
            features = self._features(self.anchors[part], pairs[part])
            equations.add(features, self.source.rows(self.source_ids[part]) - self.mean)
        # The least ridge is what rounding needs in directions that no shared token has.
        self.matrix = np.asarray(equations.solve(max(ridge, 1e-9)), np.float32)

    def _features(self, ids: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Return the features of target ids [n] with these first and last pieces, int [n, 2]; float32 [n, W]."""
        return self._mixed(ids[:, None], ends[:, None], np.ones((len(ids), 1), np.float32))

    def _mixed(self, ids: np.ndarray, ends: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return weighted sums of features, float32 [n, W], of target ids [n, k] with ends [n, k, 2]."""
        known = np.where(ends >= 0, weights[:, :, None], 0)
        pieces = [_mixed(self.source, np.maximum(ends[..., n], 0), known[..., n], self.mean) for n in (0, 1)]
        return np.concatenate([*pieces, _mixed(self.donor, ids, weights, self.donor_mean)], axis=1)

    def corrected(self, ids: np.ndarray, ends: np.ndarray, near: _Neighbours) -> np.ndarray:
        """Return the trend of some tokens, plus the weighted residuals of their neighbours.

        The trend is linear, so the residuals' sum is that of the neighbours' rows, less the trend of that of their
        features. No residual is held.

        Args:
            ids: Target ids, int64 [n].
            ends: First and last pieces, int [n, 2].
            near: Their neighbours.

        Returns:
            float32 [n, D].
        """
        result = np.empty((len(ids), len(self.mean)), np.float32)
        for begin in range(0, len(ids), self.block):
            part = slice(begin, begin + self.block)
            places, weights = near.places[part], near.weights[part]
            features = self._features(ids[part], ends[part])
            features -= self._mixed(self.anchors[places], self.pairs[places], weights)
            result[part] = self.mean + features @ self.matrix
            result[part] += _mixed(self.source, self.source_ids[places], weights, self.mean)
        return result


def _mixed(space: EmbeddingSpace, ids: np.ndarray, weights: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return weighted sums of rows less their mean, float32 [n, D], of ids int [n, k]."""
    from tokswap.init.methods._combine import combine

    rows = combine(space, ids, weights)
    rows -= weights.sum(axis=1, keepdims=True) * mean
    return rows


@dataclass(frozen=True)
class _Centred:
    """Rows of some ids less a mean row, read on demand.

    Attributes:
        space: Where the rows are.
        ids: Their ids, int64 [n].
        mean: float32 [D].
    """

    space: EmbeddingSpace
    ids: np.ndarray
    mean: np.ndarray

    @property
    def width(self) -> int:
        """Elements of a row."""
        return self.space.width

    def rows(self, places: np.ndarray) -> np.ndarray:
        """Return the rows at some places of `ids`, float32 [len(places), D]."""
        rows = self.space.rows(self.ids[places])
        rows -= self.mean
        return rows


def _ends(problem: Problem) -> np.ndarray:
    """Return the first and the last piece of each missing token, int64 [M, 2]; -1 for a token without pieces."""
    start, ids = problem.pieces.start, problem.pieces.ids
    spelt = np.flatnonzero(np.diff(start))
    ends = np.full((len(start) - 1, 2), -1, np.int64)
    ends[spelt, 0], ends[spelt, 1] = ids[start[spelt]], ids[start[spelt + 1] - 1]
    return ends
