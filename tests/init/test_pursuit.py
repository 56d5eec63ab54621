"""Matching pursuit against scikit-learn, on CPU and on the torch path, and where dictionaries are degenerate."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import orthogonal_mp

from tokswap.init.pursuit import rounds, solve, textbook
from tokswap.init.pursuit.code import SparseCode, with_ridge
from tokswap.init.pursuit.nominate import nominate
from tokswap.init.pursuit.solve import orthogonal_matching_pursuit

CPU, TORCH = "cpu", "torch"


@pytest.fixture(params=[CPU, TORCH], autouse=True)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run each test on the numba kernels and on the torch path, which other devices take, and small tasks in rounds."""
    monkeypatch.setattr(solve, "FEW_ATOMS", 0)
    if request.param == TORCH:
        monkeypatch.setattr(solve, "CpuRounds", lambda dictionary: rounds.TorchRounds(dictionary, "cpu"))
        monkeypatch.setattr(solve, "CpuTextbook", lambda dictionary: textbook.TorchTextbook(dictionary, "cpu"))
    return request.param


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def task(atoms: int, width: int, targets: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows like embeddings: decaying spectrum and a common direction."""
    rng = np.random.default_rng(seed)
    shape = rng.standard_normal((width, width)) * (1 + np.arange(width)) ** -0.4
    rows = rng.standard_normal((atoms + targets, width)) @ shape.T + shape[:, :1].T
    return unit(rows[:atoms]), rows[atoms:].astype(np.float32)


def rebuilt(dictionary: np.ndarray, code: SparseCode) -> np.ndarray:
    return np.einsum("mk,mkd->md", code.weights, dictionary[code.atoms])


def oracle(dictionary: np.ndarray, targets: np.ndarray, k: int) -> tuple[list[set[int]], np.ndarray]:
    exact = dictionary.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where it stops early
        weights = np.atleast_2d(orthogonal_mp(exact.T, targets.T.astype(np.float64), n_nonzero_coefs=k).T)
    left = np.linalg.norm(targets - weights @ exact, axis=1) / np.linalg.norm(targets, axis=1)
    return [set(np.flatnonzero(row).tolist()) for row in weights], left


@pytest.mark.parametrize(("atoms", "width", "k"), [(700, 48, 12), (3000, 64, 24), (40, 64, 20)])
def test_exact_mode_is_textbook_omp(atoms: int, width: int, k: int) -> None:
    dictionary, targets = task(atoms, width, 60)
    code = orthogonal_matching_pursuit(dictionary, targets, k, exact=True, tolerance=0.0)
    supports, left = oracle(dictionary, targets, k)
    same = [set(row[:n].tolist()) == s for row, n, s in zip(code.atoms, code.support, supports, strict=True)]
    assert np.mean(same) >= 0.995
    np.testing.assert_allclose(code.residual, left, atol=1e-4)


@pytest.mark.parametrize(("width", "k"), [(192, 32), (96, 48), (256, 6)])
def test_rounds_leave_no_more_than_textbook_omp(width: int, k: int) -> None:
    dictionary, targets = task(12000, width, 200)
    fast = orthogonal_matching_pursuit(dictionary, targets, k)
    exact = orthogonal_matching_pursuit(dictionary, targets, k, exact=True)
    assert fast.residual.mean() <= exact.residual.mean()
    assert fast.sweeps < 8.1
    assert (fast.support <= k).all()


def test_both_paths_find_the_same_codes(path: str) -> None:
    dictionary, targets = task(2000, 64, 40)
    code = orthogonal_matching_pursuit(dictionary, targets, 12)
    other = rounds.TorchRounds(dictionary, CPU) if path == CPU else rounds.CpuRounds(dictionary)
    unit_targets = unit(targets)
    found = other.code(unit_targets, 12, 1e-3, 0.0)
    same = [set(a.tolist()) == set(b.tolist()) for a, b in zip(code.atoms, found.atoms, strict=True)]
    assert np.mean(same) >= 0.8
    np.testing.assert_allclose(code.residual.mean(), found.residual.mean(), rtol=0.02)


def test_small_dictionaries_are_searched_as_in_the_textbook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solve, "FEW_ATOMS", 1000)
    dictionary, targets = task(1000, 48, 20)
    fast = orthogonal_matching_pursuit(dictionary, targets, 12)
    exact = orthogonal_matching_pursuit(dictionary, targets, 12, exact=True)
    np.testing.assert_array_equal(fast.atoms, exact.atoms)


@pytest.mark.parametrize("exact", [True, False])
def test_the_weights_are_the_least_squares_fit(exact: bool) -> None:
    dictionary, targets = task(800, 48, 30)
    code = orthogonal_matching_pursuit(dictionary, targets, 10, exact=exact)
    for n, target in enumerate(targets):
        support = dictionary[code.atoms[n]]
        wanted, *_ = np.linalg.lstsq(support.T.astype(np.float64), target.astype(np.float64), rcond=None)
        np.testing.assert_allclose(code.weights[n], wanted, rtol=2e-3, atol=2e-3)
    left = np.linalg.norm(targets - rebuilt(dictionary, code), axis=1) / np.linalg.norm(targets, axis=1)
    np.testing.assert_allclose(code.residual, left, atol=1e-4)


def test_atoms_are_never_taken_twice() -> None:
    dictionary, targets = task(1500, 32, 50)
    code = orthogonal_matching_pursuit(dictionary, targets, 16)
    for row, count in zip(code.atoms, code.support, strict=True):
        assert len(set(row[:count].tolist())) == count


@pytest.mark.parametrize("exact", [True, False])
def test_batches_do_not_matter(exact: bool) -> None:
    dictionary, targets = task(1200, 32, 70)
    whole = orthogonal_matching_pursuit(dictionary, targets, 8, exact=exact)
    small = orthogonal_matching_pursuit(dictionary, targets, 8, exact=exact, memory=1)
    np.testing.assert_array_equal(whole.atoms, small.atoms)
    np.testing.assert_allclose(whole.weights, small.weights, rtol=1e-3, atol=1e-4)


def test_the_residual_tolerance_stops_early() -> None:
    dictionary, targets = task(2000, 24, 20)
    code = orthogonal_matching_pursuit(dictionary, targets, 24, tolerance=0.5)
    assert (code.residual <= 0.5 + 1e-5).all()
    assert (code.support < 24).all()


def test_a_target_that_is_an_atom_takes_that_atom_alone() -> None:
    dictionary, _ = task(900, 40, 1)
    code = orthogonal_matching_pursuit(dictionary, 3 * dictionary[5:9], 8)
    assert code.support.tolist() == [1, 1, 1, 1]
    assert code.atoms[:, 0].tolist() == [5, 6, 7, 8]
    np.testing.assert_allclose(code.weights[:, 0], 3, rtol=1e-4)


@pytest.mark.parametrize("exact", [True, False])
def test_duplicate_atoms_do_not_blow_up(exact: bool) -> None:
    dictionary, targets = task(600, 32, 20)
    dictionary[100:500] = dictionary[100]
    dictionary[500:550] = unit(dictionary[100] + 1e-6 * np.random.default_rng(1).standard_normal((50, 32)))
    code = orthogonal_matching_pursuit(dictionary, targets, 32, exact=exact, tolerance=0.0)
    assert np.abs(code.weights).max() < 100 * np.linalg.norm(targets, axis=1).max()
    assert np.isfinite(code.residual).all()


@pytest.mark.parametrize("exact", [True, False])
def test_k_beyond_the_rank(exact: bool) -> None:
    """Atoms in a plane: two of them say all that can be said, however large k is."""
    rng = np.random.default_rng(0)
    dictionary = unit(rng.standard_normal((50, 2)) @ rng.standard_normal((2, 16)))
    targets = rng.standard_normal((6, 16)).astype(np.float32)
    code = orthogonal_matching_pursuit(dictionary, targets, 40, exact=exact, tolerance=0.0)
    assert (code.support <= 3).all()
    wanted = np.linalg.lstsq(dictionary.T.astype(np.float64), targets.T.astype(np.float64), rcond=1e-5)[0]
    np.testing.assert_allclose(rebuilt(dictionary, code), (dictionary.T @ wanted).T, atol=1e-3)


def test_one_atom() -> None:
    code = orthogonal_matching_pursuit(unit(np.ones((1, 8))), np.ones((2, 8), np.float32), 64)
    assert code.atoms.shape == (2, 1)
    np.testing.assert_allclose(code.residual, 0, atol=1e-6)


def test_a_zero_target_has_no_support() -> None:
    dictionary, targets = task(300, 16, 4)
    targets[2] = 0
    code = orthogonal_matching_pursuit(dictionary, targets, 4)
    assert code.support.tolist() == [4, 4, 0, 4]
    assert code.residual[2] == 1
    assert not code.weights[2].any()


def test_orthogonal_target() -> None:
    dictionary = np.zeros((20, 8), np.float32)
    dictionary[np.arange(20), np.arange(20) % 4] = 1
    code = orthogonal_matching_pursuit(dictionary, np.eye(8, dtype=np.float32)[6:], 4)
    assert code.support.tolist() == [0, 0]
    assert code.residual.tolist() == [1, 1]


@pytest.mark.parametrize("exact", [True, False])
def test_ridge_shrinks_the_weights(exact: bool) -> None:
    dictionary, targets = task(500, 24, 20)
    plain = orthogonal_matching_pursuit(dictionary, targets, 12, exact=exact)
    ridge = orthogonal_matching_pursuit(dictionary, targets, 12, exact=exact, ridge=0.3)
    np.testing.assert_array_equal(plain.atoms, ridge.atoms)
    assert (np.linalg.norm(ridge.weights, axis=1) < np.linalg.norm(plain.weights, axis=1)).all()
    for atoms, weights, target in zip(dictionary[ridge.atoms].astype(np.float64), ridge.weights, targets, strict=True):
        wanted = np.linalg.solve(atoms @ atoms.T + 0.3 * np.eye(12), atoms @ target)
        np.testing.assert_allclose(weights, wanted, atol=1e-4)


@pytest.mark.parametrize("exact", [True, False])
def test_ridge_where_few_atoms_are_enough(exact: bool) -> None:
    """Places that an atom has left again count for nothing."""
    rng = np.random.default_rng(0)
    dictionary = unit(rng.standard_normal((1000, 24)))
    targets = (dictionary[:100] + 0.8 * dictionary[100:200]).astype(np.float32)
    code = orthogonal_matching_pursuit(dictionary, targets, 8, exact=exact, ridge=0.1)
    assert (code.support < 8).sum() > 50
    for n, size in enumerate(code.support):
        atoms = dictionary[code.atoms[n, :size]].astype(np.float64)
        wanted = np.linalg.solve(atoms @ atoms.T + 0.1 * np.eye(size), atoms @ targets[n])
        np.testing.assert_allclose(code.weights[n], [*wanted, *np.zeros(8 - size)], atol=1e-4)


@pytest.mark.parametrize("path", [CPU], indirect=True)
def test_ridge_on_several_threads() -> None:
    """Each target's weights solve its own system, however many unknowns and threads there are."""
    rng = np.random.default_rng(0)
    rows, wanted = rng.standard_normal((24, 150, 200)), rng.standard_normal((24, 150))
    gram = torch.from_numpy(rows @ rows.transpose(0, 2, 1) / 200)
    system = gram + 0.05 * torch.eye(150, dtype=torch.float64)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        weights = with_ridge(gram, (system @ torch.from_numpy(wanted)[:, :, None])[:, :, 0], 0.05)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(weights, wanted, atol=1e-9)


def test_no_targets() -> None:
    code = orthogonal_matching_pursuit(task(50, 8, 1)[0], np.zeros((0, 8), np.float32), 4)
    assert code.atoms.shape == (0, 4)


@pytest.mark.parametrize("path", [CPU], indirect=True)
@pytest.mark.parametrize("count", [66, 100, 4999, 5000])
@pytest.mark.parametrize("shape", ["normal", "ties", "flat", "few"])
def test_nominate_lists_the_largest(count: int, shape: str) -> None:
    """The shortlist holds the largest scores of a row, whatever their distribution."""
    rng = np.random.default_rng(0)
    values = {
        "normal": rng.standard_normal((5, count)),
        "ties": rng.integers(0, 3, (5, count)) / 2,
        "flat": np.ones((5, count)),
        "few": np.where(rng.random((5, count)) < 0.01, 5.0, 0.0),
    }[shape]
    low = torch.from_numpy(values).bfloat16()
    bits = low.view(torch.int16).numpy().view(np.uint16)
    shortlist = np.empty((5, 64), np.int32)
    words = bits.reshape(-1)[: bits.size // 4 * 4].view(np.uint64)
    nominate(bits, words, shortlist)
    magnitudes = low.float().abs().numpy()
    for row, ids in zip(magnitudes, shortlist, strict=True):
        assert len(set(ids.tolist())) == 64
        np.testing.assert_array_equal(np.sort(row[ids]), np.sort(row)[-64:])
