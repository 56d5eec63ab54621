"""TokenAdapt's heuristic: a token's pieces and its neighbours, weighted by an auxiliary text encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokswap.init.base import BaseModel, DonorUse, Initializer, Problem, Rows, Sizes
from tokswap.init.made_rows import MadeRows
from tokswap.init.methods._combine import combine, combine_pieces, piece_blocks
from tokswap.init.methods._nearest import Array, HasRows, Vectors, nearest, search_bytes, unit
from tokswap.init.resources.protocol import Resources
from tokswap.options.declare import option
from tokswap.tokenizer.vocabulary import Kind, Vocabulary


@dataclass(frozen=True)
class TokenAdapt(Initializer):
    """A new token mixes a local estimate (its pieces) and a global one (the nearest source tokens).

    An auxiliary space decides the weights of both. `encoder` names a sentence-transformers model that reads each
    token's text without the spaces around it. Two stand-ins need no encoder: with `source`, a source token is its own
    row and a new one the mean of its pieces; with `donor`, both are donor rows. Some tokens have no vector: those of
    partial UTF-8, of white space or of control characters alone, and those that the encoder cannot read. As a piece,
    such a token has the cosine 0. It has no neighbours and is nobody's neighbour. Special, reserved and byte-fallback
    tokens are never neighbours. A token without pieces gets its neighbours, one without neighbours its pieces, and one
    without either the mean source row. Lengths are in bytes. Input embeddings and lm_head get the same weights, except
    with `source`, where each goes by its own rows.
    """

    encoder: str = option("source", "a sentence-transformers folder or hub id; or a stand-in: source, donor")
    tau: float = option(
        0.3, "temperature of the weights; the lower, the more the best piece or neighbour weighs", least=0.001
    )
    k: int = option(3, "neighbours in the global estimate", least=1)
    global_weight: float = option(
        0.3, "share of the global estimate: 0 is local only, 1 is global only", least=0.0, most=1.0
    )
    threshold: float = option(0.0, "neighbours with a lower cosine are left out", least=-1.0, most=1.0)
    length_weight: float = option(
        0.5, "share of a piece's length in its weight; the rest is its cosine", least=0.0, most=1.0
    )

    summary: ClassVar[str] = "pieces and nearest source tokens, weighted by a text encoder or a stand-in for one"
    reference: ClassVar[str] = "arXiv 2505.09738"
    needs: ClassVar[str] = "nothing, or a text encoder"

    def donor_use(self) -> DonorUse:
        """Require the donor with `encoder=donor`."""
        return "required" if self.encoder == "donor" else "none"

    def check(self, base: BaseModel, resources: Resources) -> None:
        """Check that the encoder can be loaded.

        Raises:
            UsageError: bad-encoder.
            InputError: unknown-encoder, offline, gated-model, not-an-encoder, remote-code, missing-extra.
        """
        if self.encoder not in ("source", "donor"):
            resources.check_encoder(self.encoder)

    def __call__(self, problem: Problem) -> Rows:
        """Mix pieces and neighbours; the diagnostic `nearest_cosine` is that of the first neighbour."""
        donor = problem.donor.name if self.encoder == "donor" and problem.donor is not None else ""
        key, cache = ("tokenadapt", self, donor), problem.context.cache
        if self.encoder == "source" or key not in cache:
            cache[key] = self._mixture(problem)
        mixture: _Mixture = cache[key]
        has_pieces, has_neighbours = np.diff(problem.pieces.start) > 0, mixture.weights.any(axis=1)
        share = np.where(has_pieces & has_neighbours, self.global_weight, has_neighbours).astype(np.float32)

        def make(part: slice) -> np.ndarray:
            rows = combine_pieces(problem, mixture.pieces, part=part)
            mixed = np.flatnonzero(share[part] > 0)
            if len(mixed):
                own = share[part][mixed, None]
                nearby = combine(problem.source, mixture.neighbours[part][mixed], mixture.weights[part][mixed])
                rows[mixed] = (1 - own) * rows[mixed] + own * nearby
            return rows

        rows = MadeRows(len(share), problem.source.width, make)
        notes: tuple[str, ...] = ()
        if lost := int(np.count_nonzero(~has_pieces & ~has_neighbours)):
            notes = (f"tokenadapt: {lost:,} new tokens have no pieces and no neighbours; each gets the mean row",)
        return Rows(rows, {"nearest_cosine": mixture.cosine}, notes=notes)

    def _mixture(self, problem: Problem) -> _Mixture:
        """Find the neighbours, and the weights of pieces and neighbours."""
        space = self._space(problem)
        wanted = space.has_new & ((self.global_weight > 0) | (np.diff(problem.pieces.start) == 0))
        asking = np.flatnonzero(wanted)
        memory, device = problem.context.memory, problem.context.device
        with problem.context.bar(len(asking), "tokenadapt, neighbours") as bar:
            places, cosines = nearest(
                space.new, asking, space.known, space.keys, self.k, memory=memory, device=device, done=bar.update
            )
        neighbours = np.zeros((len(wanted), places.shape[1]), np.int32)
        weights = np.zeros(neighbours.shape, np.float32)
        cosine = np.zeros(len(wanted), np.float32)
        if places.shape[1]:
            neighbours[asking] = space.keys[places]
            cosine[asking] = cosines[:, 0]
            score = np.where(cosines < self.threshold, 0, np.exp((cosines - cosines[:, :1]) / self.tau))
            weights[asking] = score / np.maximum(score.sum(axis=1, keepdims=True), 1)
        return _Mixture(
            pieces=self._piece_weights(problem, space), neighbours=neighbours, weights=weights, cosine=cosine
        )

    def _piece_weights(self, problem: Problem, space: _Space) -> np.ndarray:
        """Return the weight of each piece, float32 [P]: a softmax over its token's pieces, of cosine and length."""
        pieces, new, known = problem.pieces, space.new, space.known
        counts = np.diff(pieces.start)
        token = np.repeat(np.arange(len(counts)), counts)
        cosine = np.zeros(len(pieces.ids), np.float64)
        for block in piece_blocks(pieces, problem.context.memory // (16 * new.width)):
            part = slice(int(pieces.start[block.start]), int(pieces.start[block.stop]))
            whole = unit(new.rows(np.arange(block.start, block.stop)))[token[part] - block.start]
            cosine[part] = np.einsum("pd,pd->p", whole, unit(known.rows(pieces.ids[part])))
        source, target = problem.source.vocabulary.token_bytes, problem.target.token_bytes
        length = np.array([len(source[piece]) for piece in pieces.ids.tolist()], np.float64)
        whole_length = np.array([len(target[missing]) for missing in problem.missing.tolist()], np.float64)
        ratio = length / np.maximum(whole_length, 1)[token]
        mixed = (1 - self.length_weight) * _softmax(cosine, token, len(counts)) + self.length_weight * ratio
        return _softmax(mixed / self.tau, token, len(counts)).astype(np.float32)

    def _space(self, problem: Problem) -> _Space:
        """Return the auxiliary space that `encoder` names."""
        if self.encoder == "source":
            return _source_space(problem)
        if self.encoder == "donor":
            return _donor_space(problem)
        return _text_space(problem, self.encoder)

    def held(self, sizes: Sizes) -> int:
        """Count the search, or the cosines of pieces."""
        if self.encoder not in ("source", "donor"):
            return 2 * sizes.work
        own = self.encoder == "source"
        keys, width = (sizes.vocabulary, sizes.width) if own else (sizes.anchors, sizes.donor_width)
        search = search_bytes(keys, sizes.missing, width, sizes.work)
        return max(search, min(sizes.work, 16 * 4 * sizes.missing * width))

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """Count the search for neighbours, and a small encoder's work on short texts of both vocabularies."""
        encoding = 0.0 if self.encoder in ("source", "donor") else 2e8 * (missing + anchors)
        return 2.0 * missing * anchors * width * (self.global_weight > 0) + 8.0 * missing * width + encoding


@dataclass(frozen=True)
class _Mixture:
    """What the new tokens are mixed from.

    Attributes:
        pieces: Weight of each piece, float32 [P].
        neighbours: Source ids, int32 [M, k].
        weights: Their weights, float32 [M, k], zeros for a token without neighbours.
        cosine: Cosine of the nearest neighbour, float32 [M].
    """

    pieces: np.ndarray
    neighbours: np.ndarray
    weights: np.ndarray
    cosine: np.ndarray


@dataclass(frozen=True)
class _Space:
    """The auxiliary space.

    Attributes:
        new: Vectors of the missing tokens, by their place.
        known: Vectors of the source tokens, by id.
        has_new: Which missing tokens have a vector that is not zero, bool [M].
        keys: Source ids that may be neighbours, int64 [N].
    """

    new: HasRows
    known: HasRows
    has_new: np.ndarray
    keys: np.ndarray


def _source_space(problem: Problem) -> _Space:
    source = problem.source.vocabulary
    norms = problem.source.norms(np.arange(len(source)))
    keys = np.flatnonzero(source.pieces & (norms > 1e-3 * np.median(norms)))
    return _Space(new=_PieceMeans(problem), known=problem.source, has_new=np.diff(problem.pieces.start) > 0, keys=keys)


def _donor_space(problem: Problem) -> _Space:
    assert problem.donor is not None
    anchors = problem.anchors[::-1]  # where two share a source token, the first counts
    place = np.full(len(problem.source.vocabulary), -1, np.int64)
    place[problem.alignment.source_of[anchors]] = anchors
    return _Space(
        new=Vectors(problem.donor, problem.missing),
        known=Vectors(problem.donor, place),
        has_new=problem.donor.norms(problem.missing) > 0,
        keys=np.flatnonzero(place >= 0),
    )


def _text_space(problem: Problem, encoder: str) -> _Space:
    resources, context = problem.context.resources, problem.context
    assert resources is not None
    source = problem.source.vocabulary
    texts = [_texts(problem.target, problem.missing), _texts(source, np.arange(len(source)))]
    distinct = [sorted({text for text in one if text}) for one in texts]
    encoded = resources.encode_texts(encoder, distinct, device=context.device, progress=context.progress)
    vectors = []
    for own, once, rows in zip(texts, distinct, encoded, strict=True):
        place = {text: n for n, text in enumerate(once)}
        vectors.append(Vectors(Array(rows), np.array([place.get(text, -1) for text in own], np.int64)))
    new, known = vectors
    return _Space(new, known, has_new=new.known(), keys=np.flatnonzero(known.known() & source.pieces))


@dataclass(frozen=True)
class _PieceMeans:
    """The missing tokens by place, each the mean of its pieces, computed on demand."""

    problem: Problem

    @property
    def width(self) -> int:
        """Elements of a row."""
        return self.problem.source.width

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return float32 [len(ids), width]."""
        return combine_pieces(self.problem, pieces=self.problem.pieces[ids])


def _texts(vocabulary: Vocabulary, ids: np.ndarray) -> list[str]:
    """Return what the encoder reads for each token; "" for a token that it cannot read."""
    texts = []
    for token in ids.tolist():
        text = ""
        if vocabulary.kind[token] in (Kind.NORMAL, Kind.BYTE):
            try:
                text = vocabulary.token_bytes[token].decode("utf-8").strip()
            except UnicodeDecodeError:
                text = ""  # part of a character: U+FFFD would make all of these the same token
        texts.append(text if any(character.isprintable() for character in text) else "")
    return texts


def _softmax(values: np.ndarray, group: np.ndarray, count: int) -> np.ndarray:
    """Return the softmax within each group; `group` is ascending, int [len(values)]."""
    top = np.full(count, -np.inf)
    np.maximum.at(top, group, values)
    power = np.exp(values - top[group])
    return np.asarray(power / np.bincount(group, power, count)[group])
