"""TokenAdapt against a reference in float64 that is written from the paper, with plain loops."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
from test_methods import ENCODER, NEW, SHARED, in_context, made_files, problem, vocabulary

from tokswap.checkpoint.embeddings import EmbeddingSpace
from tokswap.errors import TokswapError
from tokswap.init.base import BaseModel, Context, MatrixUse, Pieces, Problem
from tokswap.init.registry import make_initializer
from tokswap.init.resources.disk import DiskResources
from tokswap.tokenizer.alignment import align
from tokswap.tokenizer.vocabulary import Kind, Vocabulary

Phi = Mapping[int, np.ndarray]


def reference(
    task: Problem,
    new: Phi,
    known: Phi,
    neighbours: list[int],
    *,
    tau: float,
    k: int,
    global_weight: float,
    threshold: float,
    length_weight: float,
) -> np.ndarray:
    """new: place of a missing token -> phi; known: source id -> phi. A token without phi is in neither."""
    rows = task.source.rows(np.arange(len(task.source))).astype(np.float64)

    def cosine(a: np.ndarray | None, b: np.ndarray | None) -> float:
        if a is None or b is None:
            return 0.0
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))

    def softmax(values: list[float]) -> np.ndarray:
        power = np.exp(np.array(values) - max(values))
        return power / power.sum()

    result = []
    for n, token in enumerate(task.missing.tolist()):
        pieces = task.pieces.ids[task.pieces.start[n] : task.pieces.start[n + 1]].tolist()
        local = every = None
        if pieces:
            alpha = softmax([cosine(new.get(n), known.get(piece)) for piece in pieces])
            lengths = np.array([len(task.source.vocabulary.token_bytes[piece]) for piece in pieces])
            score = (1 - length_weight) * alpha + length_weight * lengths / len(task.target.token_bytes[token])
            local = softmax((score / tau).tolist()) @ rows[pieces]
        if n in new:
            cosines = {key: round(cosine(new[n], known[key]), 6) for key in neighbours}
            best = sorted(neighbours, key=lambda key: (-cosines[key], key))[:k]
            best = [key for key in best if cosines[key] >= threshold]
            if best:
                every = softmax([cosines[key] / tau for key in best]) @ rows[best]
        if local is not None and every is not None:
            result.append((1 - global_weight) * local + global_weight * every)
        elif local is not None or every is not None:
            result.append(local if every is None else every)
        else:
            result.append(task.source_mean.astype(np.float64))
    return np.array(result)


@cache
def text_vectors(texts: tuple[str, ...]) -> np.ndarray:
    """What the small encoder says, computed with transformers alone, one text at a time."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = made_files()[ENCODER]
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        states = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in texts]
    return torch.nn.functional.normalize(torch.stack(states), dim=1).double().numpy()


def phi_of(task: Problem, encoder: str) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    shared = range(SHARED)
    if encoder == "donor":
        rows = task.donor.rows(np.arange(SHARED + NEW)).astype(np.float64)
        return dict(enumerate(rows[SHARED:])), {n: rows[n] for n in shared}
    if encoder == "source":
        rows = task.source.rows(np.arange(SHARED)).astype(np.float64)
        lists = [task.pieces.ids[task.pieces.start[n] : task.pieces.start[n + 1]] for n in range(NEW)]
        return {n: rows[ids].mean(0) for n, ids in enumerate(lists) if len(ids)}, dict(enumerate(rows))
    texts = [token.decode() for token in task.target.token_bytes]
    vectors = dict(enumerate(text_vectors(tuple(texts))))
    read = [n for n, text in enumerate(texts) if readable(text)]
    assert 0 < len(read) < len(texts)
    return {n - SHARED: vectors[n] for n in read if n >= SHARED}, {n: vectors[n] for n in read if n < SHARED}


@cache
def encoder_tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(made_files()[ENCODER])


def readable(text: str) -> bool:
    """The small encoder has pieces for the text."""
    return "[UNK]" not in encoder_tokenizer().tokenize(text)


DEFAULTS = {"tau": 0.3, "k": 3, "global_weight": 0.3, "threshold": 0.0, "length_weight": 0.5}


@pytest.mark.parametrize("encoder", ["source", "donor", ENCODER])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"tau": 0.05},
        {"global_weight": 0.0},
        {"global_weight": 1.0, "k": 7},
        {"threshold": 0.9, "k": 20},
        {"length_weight": 0.0},
        {"length_weight": 1.0, "tau": 0.6},
    ],
    ids=str,
)
def test_rows_are_those_of_the_paper(encoder: str, change: dict[str, float]) -> None:
    task = problem()
    settings: dict[str, Any] = {**DEFAULTS, **change}
    new, known = phi_of(task, encoder)
    wanted = reference(task, new, known, list(known), **settings)
    made = make_initializer("tokenadapt", {"encoder": made_files().get(encoder, encoder), **settings})(task)
    np.testing.assert_allclose(made.rows, wanted, atol=2e-4)


def odd_problem() -> Problem:
    """Tokens that no encoder can read, among others that it can; the source has a special and a byte-fallback token."""
    known = [b"<s>", b"A", b" house", b"ho", b"use", b"\xc3", b"\xa9", b" ", b"\n", b"A"]
    kind = np.array([Kind.SPECIAL, *[Kind.NORMAL] * 8, Kind.BYTE], np.uint8)
    source = Vocabulary([f"t{n}" for n in range(len(known))], known, kind)
    new = [b" houses", b"\xa9\xc3", b"\n\n", b"\xe2\x80\x8b", b"nothing", b"<s>"]
    target = Vocabulary(
        [*source.text[:8], *[f"new{n}" for n in range(len(new))]],
        [*known[:8], *new],
        np.array([*kind[:8], *[Kind.NORMAL] * len(new)], np.uint8),
    )
    rows = np.random.default_rng(0).standard_normal((len(known), 6)).astype(np.float32)
    pieces = Pieces.from_lists([[2, 4], [6, 5], [8, 8], [], [], [1, 4]])
    return small_problem(EmbeddingSpace.from_array(source, rows), None, target, pieces)


def small_problem(source: EmbeddingSpace, donor: EmbeddingSpace | None, target: Vocabulary, pieces: Pieces) -> Problem:
    alignment = align(target, source.vocabulary)
    return Problem(
        source=source,
        donor=donor,
        target=target,
        alignment=alignment,
        missing=alignment.missing,
        pieces=pieces,
        context=Context(resources=DiskResources()),
    )


def test_tokens_that_no_encoder_can_read() -> None:
    task = odd_problem()
    found = make_initializer("tokenadapt", {"encoder": made_files()[ENCODER]})(task)
    made = found.rows
    readable = {0: "houses", 4: "nothing"}  # the encoder has no piece for "<" of the last one
    texts = {1: "A", 2: "house", 3: "ho", 4: "use", 9: "A"}
    new = dict(zip(readable, text_vectors(tuple(readable.values())), strict=True))
    known = dict(zip(texts, text_vectors(tuple(texts.values())), strict=True))
    # Neither the special token nor the byte-fallback piece is a neighbour, and nothing was read as U+FFFD.
    np.testing.assert_allclose(made, reference(task, new, known, [1, 2, 3, 4], **DEFAULTS), atol=2e-4)
    np.testing.assert_allclose(made[1], task.source.rows(np.array([5, 6])).mean(0), atol=1e-6)
    np.testing.assert_allclose(made[3], task.source_mean)
    assert found.notes == ("tokenadapt: 1 new tokens have no pieces and no neighbours; each gets the mean row",)


def test_one_matrix_weighs_for_the_others() -> None:
    """An untied lm_head gets the weights of the input embeddings; with `source` each goes by its own rows."""
    first = problem()
    rows = problem(rows_seed=5).source.rows(np.arange(SHARED + 12))
    other = EmbeddingSpace.from_array(first.source.vocabulary, rows)
    second = dataclasses.replace(first, source=other, matrix=MatrixUse("output"))
    cache = first.context.cache
    for encoder, same in ((made_files()[ENCODER], True), ("donor", True), ("source", False)):
        method = make_initializer("tokenadapt", {"encoder": encoder})
        cache.clear()
        method(first)
        before = dict(cache)
        method(second)
        assert all((before[key] is value) == same for key, value in cache.items())
        alone = method(in_context(second)).rows
        np.testing.assert_array_equal(method(second).rows, alone)


@pytest.mark.parametrize("encoder", ["source", "donor", ENCODER])
def test_degenerate_rows(encoder: str) -> None:
    words = [f"w{n}" for n in range(9)]
    source, target = vocabulary(words), vocabulary([*words, "new", "newer"])
    for rows in (np.zeros((9, 4)), np.ones((9, 4)), np.eye(9, 4) * 1e9):
        donor = EmbeddingSpace.from_array(target, np.zeros((11, 3)))
        pieces = Pieces.from_lists([[0, 1], []])
        task = small_problem(EmbeddingSpace.from_array(source, rows), donor, target, pieces)
        made = make_initializer("tokenadapt", {"encoder": made_files().get(encoder, encoder)})(task).rows
        assert np.isfinite(made).all()
        np.testing.assert_allclose(made[0], rows[:2].mean(0), atol=0.5 * rows.max())


def test_the_encoder_decides_whether_a_donor_is_needed() -> None:
    assert make_initializer("tokenadapt").donor_use() == "none"
    assert make_initializer("tokenadapt", {"encoder": "donor"}).donor_use() == "required"
    assert make_initializer("tokenadapt", {"encoder": "nowhere/encoder"}).donor_use() == "none"


@pytest.mark.parametrize(
    ("settings", "code"),
    [({"encoder": "./nowhere"}, "unknown-encoder"), ({"encoder": "nowhere/encoder"}, "offline")],
)
def test_an_encoder_that_is_not_there(settings: dict[str, object], code: str) -> None:
    method, base = make_initializer("tokenadapt", settings), BaseModel(vocabulary([]), 1, rows=1, tied=True)
    for act in (lambda: method.check(base, DiskResources()), lambda: method(problem())):
        with pytest.raises(TokswapError) as caught:
            act()
        assert caught.value.code == code
