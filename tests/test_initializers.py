"""What single methods promise beyond the contract of test_methods.py, against small references in float64."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_methods import NEW, SHARED, problem

from tokswap.align import Alignment, Reason
from tokswap.init import Problem, make_initializer
from tokswap.space import EmbeddingSpace


def solve(name: str, task: Problem, **settings: object) -> np.ndarray:
    return make_initializer(name, settings)(task)


def double(space: EmbeddingSpace, ids: np.ndarray) -> np.ndarray:
    return space.rows(ids).astype(np.float64)


def with_anchors(task: Problem, count: int) -> Problem:
    """The same problem with fewer shared tokens: the others are named by the user, and so are no anchors."""
    reason = task.alignment.reason.copy()
    reason[np.flatnonzero(reason == Reason.BYTES)[count:]] = Reason.MAP
    return dataclasses.replace(task, alignment=Alignment(task.alignment.source_of, reason), cache={}, notes=[])


def with_donor(task: Problem, rows: np.ndarray) -> Problem:
    space = EmbeddingSpace.from_array(task.target, rows)
    return dataclasses.replace(task, donor=space, cache={}, notes=[])


def piece_means(task: Problem) -> np.ndarray:
    return solve("subword", task)


# --- subword -----------------------------------------------------------------------------------------------------

SHARE = {
    "first": lambda surface, rank: [1] + [0] * (len(surface) - 1),
    "last": lambda surface, rank: [0] * (len(surface) - 1) + [1],
    "length": lambda surface, rank: [len(piece) for piece in surface],
    "frequency": lambda surface, rank: [np.log(2.0 + place) for place in rank],
    "exponential": lambda surface, rank: [0.25**n for n in range(len(surface))],
}


@pytest.mark.parametrize("weights", SHARE)
def test_subword_weights(weights: str) -> None:
    task = problem()
    rows = solve("subword", task, weights=weights, decay=0.25)
    for n in range(NEW):
        ids = task.pieces.ids[task.pieces.start[n] : task.pieces.start[n + 1]]
        if len(ids):
            share = np.array(SHARE[weights]([task.source.vocabulary.surface[token] for token in ids], ids), float)
            np.testing.assert_allclose(rows[n], share @ double(task.source, ids) / share.sum(), atol=1e-5)
        else:
            np.testing.assert_allclose(rows[n], task.source_mean)


def test_a_decay_above_one_favours_the_last_piece_however_long_the_token() -> None:
    task = problem()
    last = solve("subword", task, weights="last")
    np.testing.assert_allclose(solve("subword", task, weights="exponential", decay=1000), last, atol=0.02)
    long = dataclasses.replace(task.pieces, start=np.array([0, 500]), ids=np.arange(500) % SHARED)
    task = dataclasses.replace(task, missing=task.missing[:1], pieces=long)
    assert np.isfinite(solve("subword", task, weights="exponential", decay=1000)).all()


# --- linear ------------------------------------------------------------------------------------------------------


def test_least_squares_is_ridge_regression() -> None:
    task = problem()
    donor, source = double(task.donor, task.anchors), double(task.source, task.alignment.source_of[task.anchors])
    noise = 0.3 * np.random.default_rng(5).standard_normal(source.shape)
    task = dataclasses.replace(
        task, source=EmbeddingSpace.from_array(task.source.vocabulary, np.concatenate([source + noise, np.zeros((12, 24))]))
    )  # fmt: skip
    x, y = donor - donor.mean(0), source + noise - (source + noise).mean(0)
    gram = x.T @ x
    fitted = np.linalg.solve(gram + 0.1 * np.trace(gram) / len(gram) * np.eye(len(gram)), x.T @ y)
    wanted = (source + noise).mean(0) + (double(task.donor, task.missing) - donor.mean(0)) @ fitted
    np.testing.assert_allclose(solve("linear", task, ridge=0.1), wanted, atol=1e-4)
    assert not task.notes


@pytest.mark.parametrize(("wide", "narrow"), [(24, 24), (16, 24)])
def test_procrustes_finds_a_rotation_and_its_scale(wide: int, narrow: int) -> None:
    rng = np.random.default_rng(2)
    rotation = np.linalg.qr(rng.standard_normal((max(wide, narrow),) * 2))[0][:wide, :narrow]
    rows = rng.standard_normal((SHARED + NEW, wide)).astype(np.float32) + 2
    task = with_donor(problem(), rows)
    source = np.concatenate([3.5 * rows[:SHARED] @ rotation + 7, np.zeros((12, narrow))])
    task = dataclasses.replace(task, source=EmbeddingSpace.from_array(task.source.vocabulary, source))
    wanted = 3.5 * rows[SHARED:] @ rotation + 7
    np.testing.assert_allclose(solve("linear", task, map="procrustes"), wanted, atol=0.02)


def test_a_map_from_fewer_tokens_than_dimensions_says_so() -> None:
    task = with_anchors(problem(), 10)
    assert np.isfinite(solve("linear", task)).all()
    assert "10 usable shared tokens do not settle" in task.notes[0]


# --- clp ---------------------------------------------------------------------------------------------------------


def test_clp_is_the_cosine_weighted_mean_of_all_shared_tokens() -> None:
    task = problem()
    theirs, ours = double(task.donor, task.anchors), double(task.source, task.alignment.source_of[task.anchors])
    new = double(task.donor, task.missing)
    cosine = (new / np.linalg.norm(new, axis=1)[:, None]) @ (theirs / np.linalg.norm(theirs, axis=1)[:, None]).T
    weights = cosine / cosine.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(solve("clp", task), weights @ ours, atol=1e-4)
    assert not task.notes


def test_clp_leaves_tokens_alone_whose_weights_cancel() -> None:
    rows = problem().donor.rows(np.arange(SHARED + NEW))
    rows[SHARED + 3] *= -1
    task = with_donor(problem(), rows)
    made = solve("clp", task)
    np.testing.assert_allclose(made[3], piece_means(task)[3], rtol=1e-6)
    assert task.notes == ["clp: 1 of 40 new tokens are unlike all shared ones; they are piece means"]


# --- what all of them do where there is little to go by ------------------------------------------------------------

DONOR_METHODS = {"linear": {}, "linear procrustes": {"map": "procrustes"}, "clp": {}}
"""As in test_methods.SETTINGS: the methods that may find too few shared tokens, and fall back."""


@pytest.fixture(params=DONOR_METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("role", ["input", "output"])
def test_without_shared_tokens_pieces_are_left(method: str, role: str) -> None:
    task = with_anchors(problem(role), 0)
    made = solve(method.split()[0], task, **DONOR_METHODS[method])
    np.testing.assert_allclose(made, piece_means(task), rtol=1e-6)
    assert task.notes


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_shared_tokens(method: str, count: int) -> None:
    made = solve(method.split()[0], with_anchors(problem(), count), **DONOR_METHODS[method])
    assert np.isfinite(made).all()
    assert np.abs(made).max() < 100


@pytest.mark.parametrize("damage", ["zero", "equal", "huge", "tiny"])
def test_degenerate_donor_rows(method: str, damage: str) -> None:
    rows = problem().donor.rows(np.arange(SHARED + NEW))
    if damage == "zero":
        rows[SHARED:] = 0
    elif damage == "equal":
        rows[:] = rows[0]
    else:
        rows *= 1e12 if damage == "huge" else 1e-12
    task = with_donor(problem(), rows)
    made = solve(method.split()[0], task, **DONOR_METHODS[method])
    assert np.isfinite(made).all()
    assert np.abs(made).max() < 100
