"""TokenAdapt's heuristic (arXiv 2505.09738): a token's pieces and its neighbours, weighed by an auxiliary text encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokswap.init.base import Problem, option
from tokswap.init.methods._sparse import Array, Rows, Vectors, combine, combine_pieces, nearest, piece_blocks, unit
from tokswap.tokenizer.vocabulary import Kind, Vocabulary


@dataclass(frozen=True)
class TokenAdapt:
    """Mixes a local estimate (the token's pieces) and a global one (the nearest source tokens), each weighed by phi.

    phi is an auxiliary space. `encoder` names a sentence-transformers model that reads each token's text, without the
    spaces around it; or one of two stand-ins that need no encoder: `source` (a source token is its own row, a new one
    the mean of its pieces) and `donor` (donor rows of the shared and the new tokens). A token of partial UTF-8, of
    white space or of control characters alone has no text, and some text an encoder has no pieces for: phi has nothing
    to say about such a token. As a piece its cosine counts as 0, and it is nobody's neighbour and has none. Control, reserved and byte-fallback tokens never are
    neighbours. A token without pieces is its neighbours, one without neighbours its pieces, one without either the mean
    source row. Lengths are in bytes. The weights are the same for input and output tables, except with `source`, where
    each table goes by its own rows.
    """

    encoder: str = option("source", "a sentence-transformers folder or hub id; or a stand-in: source, donor")
    tau: float = option(
        0.3, "temperature of the weights: the lower, the more the best piece or neighbour counts", least=0.001
    )
    k: int = option(3, "neighbours of the global estimate", least=1)
    global_weight: float = option(
        0.3, "share of the global estimate: 0 is local only, 1 global only", least=0.0, most=1.0
    )
    threshold: float = option(0.0, "neighbours with a lower cosine are left out", least=-1.0, most=1.0)
    length_weight: float = option(0.5, "what the pieces' lengths count beside their cosines", least=0.0, most=1.0)

    summary: ClassVar[str] = "pieces and nearest source tokens, weighed by a text encoder or a stand-in for one"
    source: ClassVar[str] = "arXiv 2505.09738"
    needs: ClassVar[str] = "nothing, or a text encoder"

    @property
    def needs_donor(self) -> bool:
        """With `encoder=donor` only."""
        return self.encoder == "donor"

    def check(self) -> None:
        """Raise what `find_encoder` raises."""
        if self.encoder not in ("source", "donor"):
            from tokswap.init.resources.encoder import find_encoder

            find_encoder(self.encoder)

    def __call__(self, problem: Problem) -> np.ndarray:
        """Return float32[M, D]; leaves the cosine of the nearest neighbour in `problem.details`."""
        key = ("tokenadapt", self, id(problem.donor) if self.needs_donor else 0)
        if self.encoder == "source" or key not in problem.cache:
            problem.cache[key] = self._weigh(problem)
        local, ids, weights, cosine = problem.cache[key]
        has_pieces, has_neighbours = np.diff(problem.pieces.start) > 0, weights.any(axis=1)
        share = np.where(has_pieces & has_neighbours, self.global_weight, has_neighbours).astype(np.float32)
        rows = combine_pieces(problem, local)
        mixed = np.flatnonzero(share > 0)
        if len(mixed):
            part = share[mixed, None]
            rows[mixed] = (1 - part) * rows[mixed] + part * combine(problem.source, ids[mixed], weights[mixed])
        problem.details["nearest_cosine"] = cosine
        lost = int(np.count_nonzero(~has_pieces & ~has_neighbours))
        if lost:
            problem.notes.append(
                f"tokenadapt: {lost:,} new tokens have neither pieces nor neighbours; they are the mean row"
            )
        return rows

    def _weigh(self, problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return weights of the pieces [P], neighbours int32[M, k] and their weights [M, k], the nearest's cosine [M]."""
        from tqdm import tqdm

        new, known, has_new, neighbours = self._phi(problem)
        local = self._local(problem, new, known)
        wanted = has_new & ((self.global_weight > 0) | (np.diff(problem.pieces.start) == 0))
        asking = np.flatnonzero(wanted)
        with tqdm(
            total=len(asking), desc="tokenadapt, neighbours", unit=" tokens", disable=None if problem.progress else True
        ) as bar:
            places, cosines = nearest(
                new, asking, known, neighbours, self.k, memory=problem.memory, device=problem.device, done=bar.update
            )
        found = np.zeros((len(wanted), places.shape[1]), np.int32)
        weights = np.zeros(found.shape, np.float32)
        cosine = np.zeros(len(wanted), np.float32)
        if places.shape[1]:
            found[asking] = neighbours[places]
            cosine[asking] = cosines[:, 0]
            score = np.where(cosines < self.threshold, 0, np.exp((cosines - cosines[:, :1]) / self.tau))
            weights[asking] = score / np.maximum(score.sum(axis=1, keepdims=True), 1)
        return local, found, weights, cosine

    def _local(self, problem: Problem, new: Rows, known: Rows) -> np.ndarray:
        """What each piece counts, float32[P]: softmax over its token's pieces of cosine and length, by tau."""
        pieces = problem.pieces
        counts = np.diff(pieces.start)
        token = np.repeat(np.arange(len(counts)), counts)
        cosine = np.zeros(len(pieces.ids), np.float64)
        for block in piece_blocks(pieces, problem.memory // (16 * new.width)):
            part = slice(int(pieces.start[block.start]), int(pieces.start[block.stop]))
            whole = unit(new.rows(np.arange(block.start, block.stop)))[token[part] - block.start]
            cosine[part] = np.einsum("pd,pd->p", whole, unit(known.rows(pieces.ids[part])))
        surface, target = problem.source.vocabulary.token_bytes, problem.target.token_bytes
        length = np.array([len(surface[piece]) for piece in pieces.ids.tolist()], np.float64)
        whole_length = np.array([len(target[missing]) for missing in problem.missing.tolist()], np.float64)
        ratio = length / np.maximum(whole_length, 1)[token]
        mixed = (1 - self.length_weight) * _softmax(cosine, token, len(counts)) + self.length_weight * ratio
        return _softmax(mixed / self.tau, token, len(counts)).astype(np.float32)

    def _phi(self, problem: Problem) -> tuple[Rows, Rows, np.ndarray, np.ndarray]:
        """The auxiliary space.

        Returns phi of the missing tokens by their place, phi of source tokens by id, bool[M] whether a missing token has
        one that is not zero, and the source ids that may be neighbours, int64[N].
        """
        source = problem.source.vocabulary
        if self.encoder == "source":
            new: Rows = _PieceMeans(problem)
            norms = problem.source.norms(np.arange(len(source)))
            neighbours = np.flatnonzero((source.kind == Kind.NORMAL) & (norms > 1e-3 * np.median(norms)))
            return new, problem.source, np.diff(problem.pieces.start) > 0, neighbours
        if self.encoder == "donor":
            assert problem.donor is not None
            anchors = problem.anchors[::-1]  # where two share a source token, the first counts
            place = np.full(len(source), -1, np.int64)
            place[problem.alignment.source_of[anchors]] = anchors
            new = Vectors(problem.donor, problem.missing)
            has_new = problem.donor.norms(problem.missing) > 0
            return new, Vectors(problem.donor, place), has_new, np.flatnonzero(place >= 0)
        from tokswap.init.resources.encoder import encode

        texts = [_texts(problem.target, problem.missing), _texts(source, np.arange(len(source)))]
        distinct = [sorted({text for text in one if text}) for one in texts]
        new, known = (
            Vectors(Array(rows), np.array([place.get(text, -1) for text in one], np.int64))
            for rows, one, place in zip(
                encode(self.encoder, distinct, device=problem.device, progress=problem.progress),
                texts,
                ({text: n for n, text in enumerate(one)} for one in distinct),
                strict=True,
            )
        )
        candidates = np.flatnonzero((known.place >= 0) & (source.kind == Kind.NORMAL))
        return new, known, new.known(), candidates[known.known()[candidates]]

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """The neighbours, and a small encoder's work on short texts of both vocabularies."""
        encoding = 0.0 if self.encoder in ("source", "donor") else 2e8 * (missing + anchors)
        return 2.0 * missing * anchors * width * (self.global_weight > 0) + 8.0 * missing * width + encoding


@dataclass(frozen=True)
class _PieceMeans:
    """The missing tokens by place, each the mean of its pieces, made when asked for."""

    problem: Problem

    @property
    def width(self) -> int:
        """Elements a row."""
        return self.problem.source.width

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return float32[len(ids), width]."""
        return combine_pieces(self.problem, pieces=self.problem.pieces[ids])


def _texts(vocabulary: Vocabulary, ids: np.ndarray) -> list[str]:
    """What the encoder reads for each token; "" for a token that it cannot read."""
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
    """Softmax within each group; group: int[len(values)], ascending."""
    top = np.full(count, -np.inf)
    np.maximum.at(top, group, values)
    power = np.exp(values - top[group])
    return np.asarray(power / np.bincount(group, power, count)[group])
