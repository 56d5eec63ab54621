"""Projects a teacher's next-token distributions on the student's vocabulary, by token bytes.

Two tokenizers split a text at different places. Where a student token begins at the same byte as a teacher token, or
inside it, the teacher's probability of each of its tokens goes to the student token that would come next if the text
went on with that token. What the teacher gives to tokens that were not read stays with all other tokens together.

Where a student token runs over the end of a teacher token, the teacher says nothing about it, and the target is the
real token (the crossing rule). That is so for a known share of each teacher token; elsewhere this share of its
probability is left out, so that on average the targets are what the teacher predicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from tokswap.compiled import kept_njit
from tokswap.tokenizer.alignment import align
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind

LEAST = 0.02
"""Probability that must agree with the bytes so far; what is left below that says too little."""


@dataclass(frozen=True)
class Tokenized:
    """A text as one tokenizer splits it.

    Attributes:
        ids: Its tokens, int32 [n].
        bounds: Bytes before each token, and the bytes of the whole text, int32 [n + 1].
    """

    ids: np.ndarray
    bounds: np.ndarray


@dataclass(frozen=True)
class Pieces:
    """What the student's tokenizer makes of each teacher token.

    Attributes:
        ids: Student ids of every teacher token, one after the other, int32 [total].
        start: Where those of each teacher token begin, int64 [V + 1].
        crossed: How often a student token runs over the end of each teacher token, as a share, float32 [V].
    """

    ids: np.ndarray
    start: np.ndarray
    crossed: np.ndarray


@dataclass(frozen=True)
class Targets:
    """What the student should predict at each of its tokens.

    Attributes:
        ids: Student ids, the likeliest first, int32 [n, T]; -1 where there are fewer.
        probabilities: Their probabilities, float32 [n, T]. What they lack to one is for all other tokens together.
        projected: Whether they are from the teacher; else they are the real token alone, bool [n].
    """

    ids: np.ndarray
    probabilities: np.ndarray
    projected: np.ndarray


def tokenized(tokenizer: Tokenizer, text: str, ids: Sequence[int]) -> Tokenized | None:
    """Return where the tokens of a text begin and end, None where their bytes are not those of the text.

    Args:
        tokenizer: What tokenized it.
        text: The text.
        ids: Its ids, without those that the tokenizer puts before every text.
    """
    token_bytes = [tokenizer.vocabulary.token_bytes[token] for token in ids]
    whole, joined = text.encode("utf-8"), b"".join(token_bytes)
    extra = len(joined) - len(whole)
    if joined != whole and not (extra == 1 and joined == b" " + whole):  # some tokenizers put a space before every text
        return None
    ends = [max(end - extra, 0) for end in accumulate(map(len, token_bytes), initial=0)]
    return Tokenized(np.array(ids, np.int32), np.array(ends, np.int32))


def teacher_pieces(teacher: Tokenizer, student: Tokenizer) -> list[list[int]]:
    """Return the student ids of every teacher token: its bytes tokenized, or the special token with the same role."""
    own = teacher.vocabulary
    text = np.flatnonzero((own.kind == Kind.NORMAL) | (own.kind == Kind.BYTE)).tolist()
    pieces: list[list[int]] = [[] for _ in range(len(own))]
    for token, ids in zip(text, student.tokenize_bytes([own.token_bytes[token] for token in text]), strict=True):
        pieces[token] = ids
    aligned = align(student.vocabulary, own, bos_first=teacher.adds_bos)
    kind = student.vocabulary.kind
    for token in aligned.shared[::-1].tolist():  # the first of several ids with the same source counts
        source = int(aligned.source_of[token])
        if kind[token] not in (Kind.NORMAL, Kind.BYTE) or own.kind[source] not in (Kind.NORMAL, Kind.BYTE):
            pieces[source] = [token]
    return pieces


def packed(pieces: Sequence[Sequence[int]], crossed: np.ndarray) -> Pieces:
    """Pack the pieces of each teacher token for the kernel. crossed: see `Pieces`."""
    start = np.zeros(len(pieces) + 1, np.int64)
    np.cumsum([len(ids) for ids in pieces], out=start[1:])
    return Pieces(np.array([token for ids in pieces for token in ids], np.int32), start, crossed)


def crossing_rates(pairs: Sequence[tuple[Tokenized, Tokenized]], size: int) -> np.ndarray:
    """Measure how often a student token runs over the end of each teacher token, as a share, float32 [size].

    Args:
        pairs: The texts, as teacher and student split them.
        size: Tokens of the teacher.
    """
    seen, crossed = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for teacher, student in pairs:
        over = ~np.isin(teacher.bounds[1:], student.bounds)
        np.add.at(seen, teacher.ids, 1)
        np.add.at(crossed, teacher.ids[over], 1)
    # A token that was seen once, and crossed, need not always be.
    return np.asarray(crossed / (seen + 1), np.float32)


def project(
    teacher: Tokenized,
    student: Tokenized,
    top: tuple[np.ndarray, np.ndarray],
    pieces: Pieces,
    *,
    keep: int = 32,
) -> Targets:
    """Project a teacher's distributions on the tokens of a student.

    Args:
        teacher: The text as the teacher splits it.
        student: The same text as the student splits it.
        top: The likeliest tokens at each teacher token, int32 [m, K], and their probabilities, float32 [m, K]. A row of
            zeros stands for no distribution (the first token of a text without bos).
        pieces: What the student's tokenizer makes of each teacher token.
        keep: Targets to keep of each token.
    """
    count = len(student.ids)
    ids = np.full((count, keep), -1, np.int32)
    probabilities = np.zeros((count, keep), np.float32)
    projected = np.zeros(count, np.bool_)
    _project(
        (teacher.bounds, student.ids, student.bounds),
        (top[0], top[1]),
        (pieces.ids, pieces.start, pieces.crossed),
        (ids, probabilities, projected),
        LEAST,
    )
    return Targets(ids, probabilities, projected)


@kept_njit()
def _project(texts: Any, top: Any, pieces: Any, out: Any, least: float) -> None:
    """Fill `out` (ids, probabilities, projected) for every student token; see `project`."""
    bounds, student_ids, starts = texts
    ids, probabilities, projected = out
    width = top[0].shape[1]
    found_ids, found_mass = np.empty(width, np.int32), np.empty(width, np.float32)
    j, anchor_j, anchor_i = 0, -1, 0
    for i in range(student_ids.shape[0]):
        while j + 1 < bounds.shape[0] and bounds[j + 1] <= starts[i]:
            j += 1
        if bounds[j] == starts[i]:
            anchor_j, anchor_i = j, i
        ids[i, 0], probabilities[i, 0] = student_ids[i], 1.0
        if anchor_j < 0 or anchor_j + 1 >= bounds.shape[0] or starts[i + 1] > bounds[anchor_j + 1]:
            continue
        row = (top[0][anchor_j], top[1][anchor_j])
        found, agreeing, kept = _agreeing(row, student_ids[anchor_i:i], pieces, (found_ids, found_mass))
        whole = min(row[1].sum(), np.float32(1.0))
        if agreeing < least * whole or kept <= 0:
            continue
        projected[i] = True
        order = np.argsort(-found_mass[:found], kind="mergesort")
        for n in range(min(found, ids.shape[1])):
            ids[i, n], probabilities[i, n] = found_ids[order[n]], found_mass[order[n]] * whole / kept


@kept_njit()
def _agreeing(row: Any, before: Any, pieces: Any, found: Any) -> Any:
    """Sum the probability of teacher tokens by the student token that comes after `before` in them.

    Returns how many student tokens were found, the probability of all teacher tokens that begin with `before`, and what
    is left of it without the share that is crossed.
    """
    count, mass, kept = 0, np.float32(0.0), np.float32(0.0)
    depth = before.shape[0]
    for k in range(row[0].shape[0]):
        token, probability = row[0][k], row[1][k]
        if probability <= 0 or token < 0 or token + 1 >= pieces[1].shape[0]:
            continue
        start, end = pieces[1][token], pieces[1][token + 1]
        if end - start <= depth:
            continue
        agrees = True
        for n in range(depth):
            if pieces[0][start + n] != before[n]:
                agrees = False
                break
        if not agrees:
            continue
        following = pieces[0][start + depth]
        mass += probability
        probability *= np.float32(1.0) - pieces[2][token]
        kept += probability
        for n in range(count):
            if found[0][n] == following:
                found[1][n] += probability
                break
        else:
            found[0][count], found[1][count] = following, probability
            count += 1
    return count, mass, kept
