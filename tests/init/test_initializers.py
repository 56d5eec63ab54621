"""What single methods promise beyond the contract of test_methods.py, against small references in float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import makers
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_methods import ENCODER, NEW, SHARED, WORDS, in_context, made_files, problem, vocabulary

from tokswap.checkpoint.embeddings import EmbeddingSpace
from tokswap.cli import _plan_text
from tokswap.errors import InputError, TokswapError
from tokswap.init.base import BaseModel, Pieces, Problem, Rows
from tokswap.init.methods.focus import sparsemax
from tokswap.init.methods.wechsel import _token_vectors
from tokswap.init.registry import make_initializer
from tokswap.init.resources.disk import DiskResources
from tokswap.init.resources.protocol import WordVectors
from tokswap.tokenizer.alignment import Alignment, Reason
from tokswap.transplant.plan import transplant_tokenizer


def solve(name: str, task: Problem, **settings: object) -> Rows:
    return make_initializer(name, settings)(task)


def double(space: EmbeddingSpace, ids: np.ndarray) -> np.ndarray:
    return space.rows(ids).astype(np.float64)


def with_anchors(task: Problem, count: int) -> Problem:
    """The same problem with fewer shared tokens: the others are named by the user, and so are no anchors."""
    reason = task.alignment.reason.copy()
    reason[np.flatnonzero(reason == Reason.BYTES)[count:]] = Reason.MAP
    return dataclasses.replace(in_context(task), alignment=Alignment(task.alignment.source_of, reason))


def with_donor(task: Problem, rows: np.ndarray) -> Problem:
    space = EmbeddingSpace.from_array(task.target, rows)
    return dataclasses.replace(in_context(task), donor=space)


def piece_means(task: Problem) -> np.ndarray:
    return solve("subword", task).rows


# --- subword -----------------------------------------------------------------------------------------------------

SHARE = {
    "first": lambda pieces, rank: [1] + [0] * (len(pieces) - 1),
    "last": lambda pieces, rank: [0] * (len(pieces) - 1) + [1],
    "length": lambda pieces, rank: [len(piece) for piece in pieces],
    "frequency": lambda pieces, rank: [np.log(2.0 + place) for place in rank],
    "exponential": lambda pieces, rank: [0.25**n for n in range(len(pieces))],
}


@pytest.mark.parametrize("weights", SHARE)
def test_subword_weights(weights: str) -> None:
    task = problem()
    rows = solve("subword", task, weights=weights, decay=0.25).rows
    for n in range(NEW):
        ids = task.pieces.ids[task.pieces.start[n] : task.pieces.start[n + 1]]
        if len(ids):
            share = np.array(SHARE[weights]([task.source.vocabulary.token_bytes[token] for token in ids], ids), float)
            np.testing.assert_allclose(rows[n], share @ double(task.source, ids) / share.sum(), atol=1e-5)
        else:
            np.testing.assert_allclose(rows[n], task.source_mean)


def test_a_decay_above_one_favours_the_last_piece_however_long_the_token() -> None:
    task = problem()
    last = solve("subword", task, weights="last").rows
    np.testing.assert_allclose(solve("subword", task, weights="exponential", decay=1000).rows, last, atol=0.02)
    long = Pieces.from_lists([(np.arange(500) % SHARED).tolist()])
    task = dataclasses.replace(task, missing=task.missing[:1], pieces=long)
    assert np.isfinite(solve("subword", task, weights="exponential", decay=1000).rows).all()


# --- linear ------------------------------------------------------------------------------------------------------


def test_least_squares_is_ridge_regression() -> None:
    task = problem()
    donor, source = double(task.donor, task.anchors), double(task.source, task.alignment.source_of[task.anchors])
    noise = 0.3 * np.random.default_rng(5).standard_normal(source.shape)
    task = dataclasses.replace(
        task,
        source=EmbeddingSpace.from_array(task.source.vocabulary, np.concatenate([source + noise, np.zeros((12, 24))])),
    )
    x, y = donor - donor.mean(0), source + noise - (source + noise).mean(0)
    gram = x.T @ x
    fitted = np.linalg.solve(gram + 0.1 * np.trace(gram) / len(gram) * np.eye(len(gram)), x.T @ y)
    wanted = (source + noise).mean(0) + (double(task.donor, task.missing) - donor.mean(0)) @ fitted
    found = solve("linear", task, ridge=0.1)
    np.testing.assert_allclose(found.rows, wanted, atol=1e-4)
    assert not found.notes


@pytest.mark.parametrize(("wide", "narrow"), [(24, 24), (16, 24)])
def test_procrustes_finds_a_rotation_and_its_scale(wide: int, narrow: int) -> None:
    rng = np.random.default_rng(2)
    rotation = np.linalg.qr(rng.standard_normal((max(wide, narrow),) * 2))[0][:wide, :narrow]
    rows = rng.standard_normal((SHARED + NEW, wide)).astype(np.float32) + 2
    task = with_donor(problem(), rows)
    source = np.concatenate([3.5 * rows[:SHARED] @ rotation + 7, np.zeros((12, narrow))])
    task = dataclasses.replace(task, source=EmbeddingSpace.from_array(task.source.vocabulary, source))
    wanted = 3.5 * rows[SHARED:] @ rotation + 7
    np.testing.assert_allclose(solve("linear", task, map="procrustes").rows, wanted, atol=0.02)


def test_a_map_from_fewer_tokens_than_dimensions_says_so() -> None:
    found = solve("linear", with_anchors(problem(), 10))
    assert np.isfinite(found.rows).all()
    assert "10 usable shared tokens cannot determine a map" in found.notes[0]


# --- clp ---------------------------------------------------------------------------------------------------------


def test_clp_is_the_cosine_weighted_mean_of_all_shared_tokens() -> None:
    task = problem()
    theirs, ours = double(task.donor, task.anchors), double(task.source, task.alignment.source_of[task.anchors])
    new = double(task.donor, task.missing)
    cosine = (new / np.linalg.norm(new, axis=1)[:, None]) @ (theirs / np.linalg.norm(theirs, axis=1)[:, None]).T
    weights = cosine / cosine.sum(axis=1, keepdims=True)
    found = solve("clp", task)
    np.testing.assert_allclose(found.rows, weights @ ours, atol=1e-4)
    assert not found.notes


def test_clp_leaves_tokens_alone_whose_weights_cancel() -> None:
    rows = problem().donor.rows(np.arange(SHARED + NEW))
    rows[SHARED + 3] *= -1
    task = with_donor(problem(), rows)
    found = solve("clp", task)
    np.testing.assert_allclose(found.rows[3], piece_means(task)[3], rtol=1e-6)
    assert found.notes == ("clp: 1 of 40 new tokens resemble no shared token; each gets the mean of its pieces",)


# --- focus -------------------------------------------------------------------------------------------------------


def projected(scores: np.ndarray) -> np.ndarray:
    """The nearest point of the simplex, by bisection for the threshold that leaves a sum of one."""
    low, high = scores.min() - 1, scores.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(scores - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(scores - low, 0)


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50), st.floats(0.1, 20))
def test_sparsemax_is_the_nearest_point_of_the_simplex(scores: list[float], scale: float) -> None:
    row = -np.sort(-np.array(scores, np.float32) * np.float32(scale))
    np.testing.assert_allclose(sparsemax(row[None])[0], projected(row.astype(np.float64)), atol=1e-5)


@pytest.mark.parametrize("common", [0.0, 0.5, 20.0])
@pytest.mark.parametrize("memory", [1000, 1 << 24])
def test_focus_mixes_by_sparsemax_however_many_it_takes(common: float, memory: int) -> None:
    """With a large direction in common all cosines are alike, and the mixture takes hundreds of tokens."""
    rng = np.random.default_rng(3)
    task = with_donor(problem(), rng.standard_normal((SHARED + NEW, 32)).astype(np.float32) + common)
    task = in_context(task, memory=memory)
    theirs, new = double(task.donor, task.anchors), double(task.donor, task.missing)
    cosine = (new / np.linalg.norm(new, axis=1)[:, None]) @ (theirs / np.linalg.norm(theirs, axis=1)[:, None]).T
    weights = np.stack([projected(row) for row in cosine])
    ours = double(task.source, task.alignment.source_of[task.anchors])
    found = solve("focus", task)
    np.testing.assert_allclose(found.rows, weights @ ours, atol=1e-3)
    taken = (weights > 1e-6).sum(axis=1)
    np.testing.assert_allclose(found.diagnostics["support"], taken, atol=1)
    assert (taken.max() > 250) == (common == 20)


def test_focus_learns_from_a_text_what_stands_together(tmp_path: Path) -> None:
    """Tokens of one group occur together; a new token is mixed from its own group."""
    rng = np.random.default_rng(0)
    task = problem(new=4)
    groups = [[f"w{n}" for n in range(10)] + ["n0"], [f"w{n}" for n in range(10, 20)] + ["n1"]]
    lines = [" ".join(rng.choice(groups[n % 2], 12)) for n in range(400)]
    (tmp_path / "text.txt").write_text("\n".join(lines))
    method = make_initializer("focus", {"text": str(tmp_path / "text.txt"), "width": 16, "epochs": 10})
    assert method.donor_use() == "none"
    method(dataclasses.replace(task, donor=None))
    mixture, weights = next(iter(task.context.cache.values()))
    for n, own in enumerate((range(10), range(10, 20))):
        part = slice(mixture.start[n], mixture.start[n + 1])
        assert weights[part][np.isin(mixture.ids[part], own)].sum() > 0.8
    found = method(task)
    np.testing.assert_allclose(found.rows[2:], piece_means(task)[2:])
    assert found.notes == ("focus: 2 of 4 new tokens have no auxiliary vector; each gets the mean of its pieces",)


@pytest.mark.parametrize("content", ["", "w1 w2 w3", "n0 " * 50], ids=["empty", "short", "one token"])
def test_focus_with_a_text_that_teaches_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "text.txt").write_text(content)
    task = problem()
    found = solve("focus", task, text=str(tmp_path / "text.txt"))
    np.testing.assert_allclose(found.rows, piece_means(task), rtol=1e-6)
    assert found.notes


# --- wechsel -----------------------------------------------------------------------------------------------------


def test_wechsel_is_the_softmax_of_the_nearest() -> None:
    task, files = problem(), made_files()
    rows = np.load(files[WORDS])["vectors"].astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1)[:, None]
    ours = double(task.source, np.arange(SHARED))
    found = solve("wechsel", task, vectors=files[WORDS], k=4, temperature=0.2)
    made = found.rows
    means = piece_means(task)
    for n in range(NEW):
        if SHARED + n < len(rows):
            cosine = rows[:SHARED] @ rows[SHARED + n]
            best = np.argsort(-cosine)[:4]
            power = np.exp(cosine[best] / 0.2)
            np.testing.assert_allclose(made[n], power / power.sum() @ ours[best], atol=1e-4)
        else:
            np.testing.assert_allclose(made[n], means[n], rtol=1e-6)
    assert found.notes[0].startswith("wechsel: 5 of 40 new tokens are part of no word")


def test_a_tokens_vector_is_the_mean_of_its_words_by_rank() -> None:
    class Parts:
        def encode(self, text: str) -> list[int]:
            raise NotImplementedError

        def tokenize_bytes(self, token_bytes: Sequence[bytes]) -> list[list[int]]:
            ids = {b"ab": [0, 1], b"ac": [0, 2], b" ab": [3], b" ac": [3, 2]}
            return [ids[one] for one in token_bytes]

    rows = np.array([[2.0, 0.0], [0.0, 5.0]])
    tokens = [b"a", b"b", b"c", b" a", b"d", b" ac ab"]
    vectors = _token_vectors(WordVectors(["ab", "ac"], rows), Parts(), tokens).rows(np.arange(6))
    both = np.array([1.0, 0.5]) / 1.5
    np.testing.assert_allclose(vectors, [both, [1, 0], [0, 1], both, [0, 0], [0.5, 0.5]], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "code"),
    [
        ("wechsel", {}, "missing-setting"),
        ("wechsel", {"vectors": "nowhere.vec"}, "unknown-file"),
        ("wechsel", {"vectors": __file__, "source_vectors": "nowhere.vec"}, "unknown-file"),
        ("focus", {"text": "nowhere.txt"}, "unknown-file"),
    ],
)
def test_files_are_looked_for_beforehand(name: str, settings: dict[str, object], code: str) -> None:
    method, base = make_initializer(name, settings), BaseModel(vocabulary([]), 1, rows=1, tied=True)
    with pytest.raises(TokswapError) as caught:
        method.check(base, DiskResources())
    assert caught.value.code == code


def test_vectors_of_two_widths(tmp_path: Path) -> None:
    (tmp_path / "other.vec").write_text("w0 1 2 3\n")
    with pytest.raises(InputError) as caught:
        solve("wechsel", problem(), vectors=made_files()[WORDS], source_vectors=str(tmp_path / "other.vec"))
    assert caught.value.code == "bad-vectors"


# --- what all of them do where there is little to go by ------------------------------------------------------------

DONOR_METHODS = {"linear": {}, "linear procrustes": {"map": "procrustes"}, "clp": {}, "focus": {}}
"""As in test_methods.SETTINGS: the methods that may find too few shared tokens, and fall back."""


@pytest.fixture(params=DONOR_METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("role", ["input", "output"])
def test_without_shared_tokens_pieces_are_left(method: str, role: str) -> None:
    task = with_anchors(problem(role), 0)
    found = solve(method.split()[0], task, **DONOR_METHODS[method])
    np.testing.assert_allclose(found.rows, piece_means(task), rtol=1e-6)
    assert found.notes


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_shared_tokens(method: str, count: int) -> None:
    made = solve(method.split()[0], with_anchors(problem(), count), **DONOR_METHODS[method]).rows
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
    made = solve(method.split()[0], task, **DONOR_METHODS[method]).rows
    assert np.isfinite(made).all()
    assert np.abs(made).max() < 100


# --- in a whole run ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tokenadapt", "focus", "wechsel"])
def test_a_run_with_real_tokenizers(name: str, model_of: Callable[..., Path], tmp_path: Path) -> None:
    """An untied model and a tokenizer without weights: methods read files, and both matrices get new rows."""
    english = makers.TEXTS / "english.txt"
    words = sorted(set(english.read_text("utf-8").split()))
    rows = np.random.default_rng(0).standard_normal((len(words), 8))
    np.savez(tmp_path / "words.npz", words=words, vectors=rows)
    settings = {
        "tokenadapt": {"encoder": made_files()[ENCODER]},
        "focus": {"text": str(english), "width": 8, "epochs": 1, "least": 2},
        "wechsel": {"vectors": str(tmp_path / "words.npz")},
    }[name]
    tokenizer = model_of("qwen2") / "tokenizer.json"
    report = transplant_tokenizer(
        str(model_of("llama")), str(tokenizer), init=name, settings=settings, out=tmp_path / "out"
    )
    assert report.plan.names.donor is None
    missing = len(report.alignment.missing)
    for role in ("input", "output"):
        assert report.checks[f"{role} rows made"] == missing > 0
    found = next(iter(report.rows.diagnostics["input"].values()))
    assert 0 < np.count_nonzero(found) < missing, "some tokens have neighbours, and bytes have none"
    if name != "tokenadapt":
        assert [note.split(":")[0] for note in report.notes] == [name]
        assert report.notes[0] in "\n".join(_plan_text.report_lines(report))
    assert report.summary()["notes"] == list(report.notes)
