"""Word vectors: files of a user, and vectors trained on a text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tokswap.errors import InputError
from tokswap.init.resources import vectors as module
from tokswap.init.resources.disk import DiskResources
from tokswap.init.resources.vectors import read_vectors, train_vectors


def test_text_with_and_without_a_line_of_sizes(tmp_path: Path) -> None:
    path = tmp_path / "v.vec"
    for head in ("", "2 3\n"):
        path.write_text(f"{head}the 1 2 3\nÄpfel 0.5 -1e-3 4 \n", encoding="utf-8")
        found = read_vectors(str(path), 10)
        assert found.words == ["the", "Äpfel"]
        np.testing.assert_allclose(found.rows, [[1, 2, 3], [0.5, -1e-3, 4]])
        assert read_vectors(str(path), 1).words == ["the"]


def test_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", words=["a", "b"], vectors=np.eye(2))
    found = read_vectors(str(tmp_path / "v.npz"), 10)
    assert found.words == ["a", "b"]
    assert found.rows.dtype == np.float32
    assert read_vectors(str(tmp_path / "v.npz"), 1).rows.shape == (1, 2)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("v.vec", b""),
        ("v.vec", b"3 4\n"),
        ("v.vec", b"the 1 2\nof 1\n"),
        ("v.vec", b"the one two\n"),
        ("v.vec", b"the 1 nan\n"),
        ("v.vec", b"\xff\xfe\x00 1 2\n"),
        ("v.vec", b"the\nof\n"),
        ("v.npz", b"PK not a zip"),
        ("v.npz", b""),
    ],
    ids=range(9),
)
def test_damaged_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_vectors(str(tmp_path / name), 10)
    assert caught.value.code == "bad-vectors"


@pytest.mark.parametrize(
    "arrays",
    [
        {"words": ["a"]},
        {"words": ["a"], "vectors": np.eye(2)},
        {"words": ["a"], "vectors": np.ones(1)},
        {"words": np.array(["a", 1], object), "vectors": np.eye(2)},
    ],
    ids=range(4),
)
def test_npz_with_other_contents(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "v.npz", **arrays)
    with pytest.raises(InputError) as caught:
        read_vectors(str(tmp_path / "v.npz"), 10)
    assert caught.value.code == "bad-vectors"


def test_training_is_repeatable_and_covers_what_is_frequent() -> None:
    rng = np.random.default_rng(0)
    sentences = [rng.integers(0, 8, 20).tolist() for _ in range(30)] + [[9]]
    names = [f"name{n}" for n in range(12)]
    first, second = (train_vectors(sentences, names, width=6, epochs=2, least=5, seed=1) for _ in range(2))
    assert first[0].tolist() == list(range(8))
    assert first[1].shape == (8, 6)
    np.testing.assert_array_equal(first[1], second[1])
    other = train_vectors(sentences, names, width=6, epochs=2, least=5, seed=2)[1]
    assert not np.array_equal(first[1], other)


def test_long_sentences_are_read_to_their_end() -> None:
    ids, _ = train_vectors([[0] * 20_000 + [1, 2] * 50], ["a", "b", "c"], width=4, epochs=1, least=5, seed=0)
    assert ids.tolist() == [0, 1, 2]


def test_training_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(InputError) as caught:
        train_vectors([[0, 1]], ["a", "b"], width=4, epochs=1, least=1, seed=0)
    assert caught.value.code == "missing-extra"


def test_a_text_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError) as caught:
        DiskResources().read_text(str(tmp_path / "t.txt"))
    assert caught.value.code == "bad-text"
