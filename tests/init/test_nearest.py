"""The search for the nearest rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_methods import vocabulary

from tokswap.checkpoint.embeddings import EmbeddingSpace
from tokswap.init.methods._nearest import nearest


def space(rows: np.ndarray) -> EmbeddingSpace:
    return EmbeddingSpace.from_array(vocabulary([f"v{n}" for n in range(len(rows))]), rows)


def reference(queries: np.ndarray, keys: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """All cosines in float64; equal ones by their place."""

    def directions(rows: np.ndarray) -> np.ndarray:
        return rows.astype(np.float64) / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)

    cosines = (directions(queries) @ directions(keys).T).round(6)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(cosines, order, 1)


@given(
    queries=st.integers(0, 40),
    keys=st.integers(1, 60),
    k=st.integers(1, 9),
    memory=st.sampled_from([1, 900, 1 << 20]),
    seed=st.integers(0, 9),
)
def test_neighbours_are_exact_whatever_the_memory(queries: int, keys: int, k: int, memory: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ours, theirs = rng.standard_normal((queries, 6)), rng.standard_normal((keys, 6))
    places, cosines = nearest(space(ours), np.arange(queries), space(theirs), np.arange(keys), k, memory=memory)
    wanted, values = reference(ours.astype(np.float32), theirs.astype(np.float32), k)
    np.testing.assert_array_equal(places, wanted)
    np.testing.assert_allclose(cosines, values, atol=2e-6)


@pytest.mark.parametrize("memory", [1, 2000, 1 << 24])
def test_equal_neighbours_come_in_the_order_of_their_places(memory: int) -> None:
    rng = np.random.default_rng(0)
    keys = np.repeat(rng.standard_normal((10, 8)), 4, axis=0)[rng.permutation(40)]
    queries = keys[:7] + 0.01 * rng.standard_normal((7, 8))
    places, _ = nearest(space(queries), np.arange(7), space(keys), np.arange(40), 3, memory=memory)
    np.testing.assert_array_equal(places, reference(queries, keys.astype(np.float32), 3)[0])


def test_more_equal_neighbours_than_are_wanted() -> None:
    keys = np.tile(np.array([[1.0, 0.0]]), (300, 1))
    places, _ = nearest(space(keys), np.arange(4), space(keys), np.arange(300), 3, memory=1 << 20)
    assert places.tolist() == [[0, 1, 2]] * 4


def test_places_are_in_the_list_of_keys_not_in_the_space() -> None:
    rows = np.eye(6, dtype=np.float32)
    places, cosines = nearest(space(rows), np.array([4]), space(rows), np.array([5, 4, 2]), 1, memory=1 << 20)
    assert (places.tolist(), cosines.tolist()) == ([[1]], [[1.0]])


def test_zero_rows_are_no_nan() -> None:
    rows = np.zeros((5, 4), np.float32)
    places, cosines = nearest(space(rows), np.arange(5), space(rows), np.arange(5), 2, memory=1 << 20)
    assert places.tolist() == [[0, 1]] * 5
    assert (cosines == 0).all()


def test_no_key_gives_no_neighbour() -> None:
    rows = np.ones((3, 4), np.float32)
    places, cosines = nearest(space(rows), np.arange(3), space(rows), np.arange(0), 2, memory=1 << 20)
    assert places.shape == cosines.shape == (3, 0)
