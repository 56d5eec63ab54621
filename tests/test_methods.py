"""One contract for every method, one row a method; and the registry that names them."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import makers
import numpy as np
import pytest
from hypernets import write_hypernet

from tokswap.checkpoint.embeddings import EmbeddingSpace
from tokswap.errors import InputError, UsageError
from tokswap.hypernet import HypernetConfig
from tokswap.init.base import Context, Initializer, MatrixUse, Pieces, Problem, Tokenizers
from tokswap.init.registry import METHODS, make_initializer, method_class
from tokswap.init.resources.disk import DiskResources
from tokswap.options.declare import declared
from tokswap.tokenizer.alignment import align
from tokswap.tokenizer.vocabulary import BYTE_ALPHABET, Kind, Vocabulary

ENCODER = "(the folder of a small encoder)"
OURS, THEIRS = "(lines of a text)", "(their translations)"
TEXT, WORDS, OTHER_WORDS = "(a text)", "(a .npz file of word vectors)", "(a .vec file of word vectors)"
SETTINGS: dict[str, dict[str, object]] = {
    "auto": {"hidden": 48},
    "omp": {"k": 8},
    "subword": {},
    "subword first": {"weights": "first"},
    "subword last": {"weights": "last"},
    "subword exponential": {"weights": "exponential", "decay": 2.0},
    "subword length": {"weights": "length"},
    "subword frequency": {"weights": "frequency"},
    "kriging": {"neighbours": 8},
    "tokenadapt": {"k": 40},
    "tokenadapt global": {"global_weight": 1.0, "k": 40, "threshold": 0.2},
    "tokenadapt donor": {"encoder": "donor"},
    "tokenadapt encoder": {"encoder": ENCODER},
    "focus": {},
    "focus text": {"text": TEXT, "width": 8, "least": 1, "epochs": 1},
    "wechsel": {"vectors": WORDS},
    "wechsel pair": {"vectors": WORDS, "source_vectors": OTHER_WORDS, "k": 3, "temperature": 0.5},
    "trans-tokenizer": {"source_text": OURS, "target_text": THEIRS, "rounds": 2},
    "linear": {},
    "linear procrustes": {"map": "procrustes"},
    "clp": {},
    "mean": {},
    "zero": {},
    "gaussian": {},
    "zett": {},  # its path is set by the fixture below
}
"""Method -> settings that fit the small problem below. A new method adds a row, and one for each other way it works."""

WIDTH, DONOR_WIDTH, SHARED, NEW = 24, 32, 300, 40


def vocabulary(words: list[str], unused: int = 0) -> Vocabulary:
    text = words + [f"<unused{n}>" for n in range(unused)]
    kind = np.array([Kind.NORMAL] * len(words) + [Kind.UNUSED] * unused, np.uint8)
    return Vocabulary(text, [word.encode() for word in text], kind)


def problem(role: str = "input", *, new: int = NEW, seed: int = 0, rows_seed: int = 0) -> Problem:
    """Source and donor share 300 words and a linear map between their rows; the target has 40 words more."""
    rng = np.random.default_rng(rows_seed)
    words = [f"w{n}" for n in range(SHARED)]
    source, target = vocabulary(words, unused=12), vocabulary(words + [f"n{n}" for n in range(new)])
    donor_rows = rng.standard_normal((SHARED + new, DONOR_WIDTH)).astype(np.float32) + 0.5
    source_rows = donor_rows[:SHARED] @ rng.standard_normal((DONOR_WIDTH, WIDTH)).astype(np.float32) / 6
    source_rows = np.concatenate([source_rows, np.full((12, WIDTH), 1e-3, np.float32)])
    alignment = align(target, source)
    pieces = Pieces.from_lists([[n % SHARED, (7 * n + 1) % SHARED][: n % 3] for n in range(new)])
    pairs = np.array([[(3 * n) % SHARED, (5 * n + 1) % SHARED] for n in range(SHARED + 12)])
    return Problem(
        source=EmbeddingSpace.from_array(source, source_rows),
        donor=EmbeddingSpace.from_array(target, donor_rows),
        target=target,
        alignment=alignment,
        missing=alignment.missing,
        pieces=pieces,
        matrix=MatrixUse(role, scores=role == "output"),
        tokenizers=Tokenizers(Words(source), Words(target), merge_pairs=pairs),
        context=Context(seed, resources=DiskResources()),
    )


def in_context(task: Problem, **changes: object) -> Problem:
    """The same problem in another context; with an empty cache unless one is given."""
    return dataclasses.replace(task, context=dataclasses.replace(task.context, **{"cache": {}, **changes}))


@pytest.fixture(scope="module", autouse=True)
def _hypernet(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A random hypernetwork that knows the source of the small problem."""
    words = [f"w{n}" for n in range(SHARED)] + [f"<unused{n}>" for n in range(12)]
    ids = {token: n for n, token in enumerate([*words, *BYTE_ALPHABET])}
    decoder = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    spec = {"model": {"type": "BPE", "vocab": ids, "merges": []}, "decoder": decoder, "added_tokens": []}
    config = HypernetConfig(
        n_embd=WIDTH,
        original_vocab_size=SHARED + 12,
        hn_hidden_size=16,
        hn_intermediate_size=24,
        hn_n_layers=1,
        hn_n_extra_tokens=256,
    )
    SETTINGS["zett"]["path"] = str(write_hypernet(tmp_path_factory.mktemp("zett") / "hypernet", config, spec))


@pytest.fixture(params=sorted(SETTINGS))
def method(request: pytest.FixtureRequest) -> str:
    return request.param


def run(method: str, task: Problem) -> np.ndarray:
    return make(method)(task).rows


def make(method: str) -> Initializer:
    settings = {key: made_files()[value] if value in FILES else value for key, value in SETTINGS[method].items()}
    return make_initializer(method.split()[0], settings)


FILES = (ENCODER, TEXT, WORDS, OTHER_WORDS, OURS, THEIRS)
"""Placeholders in SETTINGS for files that `made_files` writes."""


@functools.cache
def made_files() -> dict[object, str]:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    rng = np.random.default_rng(0)
    words = [f"w{n}" for n in range(SHARED)] + [f"n{n}" for n in range(NEW - 5)]
    (folder / "text.txt").write_text("\n".join(" ".join(rng.permutation(words)) for _ in range(3)))
    for name, letter in (("ours", "w"), ("theirs", "n")):
        lines = [" ".join(f"{letter}{(7 * n + m) % (NEW - 5)}" for m in range(5)) for n in range(20)]
        (folder / f"{name}.txt").write_text("\n".join(lines))
    rows = rng.standard_normal((len(words), 10)).astype(np.float32)
    np.savez(folder / "words.npz", words=words, vectors=rows)
    rows += 0.1 * rng.standard_normal(rows.shape).astype(np.float32)
    lines = [f"{word} {' '.join(str(number) for number in row)}" for word, row in zip(words, rows, strict=True)]
    (folder / "words.vec").write_text("\n".join([f"{len(words)} 10", *lines]) + "\n")
    return {
        ENCODER: str(makers.make_encoder(folder / "encoder")),
        TEXT: str(folder / "text.txt"),
        OURS: str(folder / "ours.txt"),
        THEIRS: str(folder / "theirs.txt"),
        WORDS: str(folder / "words.npz"),
        OTHER_WORDS: str(folder / "words.vec"),
    }


class Words:
    """A tokenizer that knows whole words."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    def encode(self, text: str) -> list[int]:
        return [token for word in text.split() if (token := self.vocabulary.id_of.get(word.encode())) is not None]

    def tokenize_bytes(self, token_bytes: list[bytes]) -> list[list[int]]:
        found = [self.vocabulary.id_of.get(one.strip()) for one in token_bytes]
        return [[token] if token is not None else [] for token in found]


def test_every_method_has_a_row() -> None:
    assert {method.split()[0] for method in SETTINGS} == set(METHODS)


@pytest.mark.parametrize("role", ["input", "output", "per-layer"])
def test_shape_dtype_and_finite(method: str, role: str) -> None:
    if (method, role) == ("zett", "per-layer"):
        with pytest.raises(InputError, match="per-layer"):
            run(method, problem(role))
        return
    rows = run(method, problem(role))
    assert rows.shape == (NEW, WIDTH)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()


def test_the_seed_decides(method: str) -> None:
    first, second = run(method, problem(seed=1)), run(method, problem(seed=1))
    np.testing.assert_array_equal(first, second)


def test_gaussian_draws_differ_between_seeds() -> None:
    assert not np.array_equal(run("gaussian", problem(seed=1)), run("gaussian", problem(seed=2)))


def test_a_row_does_not_depend_on_the_other_missing_tokens(method: str) -> None:
    """Solving in other batches, or for fewer tokens, gives the same rows."""
    whole = problem()
    some = np.array([0, 3, 17])
    part = dataclasses.replace(in_context(whole), missing=whole.missing[some], pieces=whole.pieces[some])
    if method == "gaussian":
        # A draw has no other identity than its place in the sequence; the first token's is the same.
        np.testing.assert_allclose(run(method, part)[:1], run(method, whole)[:1], rtol=1e-4, atol=1e-5)
    else:
        np.testing.assert_allclose(run(method, part), run(method, whole)[some], rtol=1e-3, atol=1e-4)


def test_rows_in_blocks_are_the_same(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for rows in whatever parts, and again, gets the same ones."""
    whole = run(method, problem())
    monkeypatch.setattr("tokswap.init.made_rows.BLOCK", 7)
    made = make(method)(problem()).made
    rows = np.concatenate([made[3:], made[:3]])
    rows = np.concatenate([rows[-3:], rows[:-3]])
    np.testing.assert_array_equal(rows, made[: len(made)])
    if method != "gaussian":  # each block has draws of its own
        np.testing.assert_allclose(rows, whole, rtol=1e-3, atol=1e-4)


def test_blocks_that_are_read_do_not_show(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of a wide matrix has fewer rows than one of a narrow matrix, as in models of two sizes."""
    whole = run(method, problem())
    monkeypatch.setattr("tokswap.checkpoint.embeddings._BLOCK_ELEMENTS", 5 * WIDTH)
    np.testing.assert_allclose(run(method, problem()), whole, rtol=1e-3, atol=1e-4)


def test_the_problem_is_left_alone(method: str) -> None:
    task = problem()
    before = task.source.columns[0].raw.copy(), task.donor.columns[0].raw.copy(), task.missing.copy()
    run(method, task)
    for old, new in zip(before, (task.source.columns[0].raw, task.donor.columns[0].raw, task.missing), strict=True):
        np.testing.assert_array_equal(old, new)


def test_nothing_missing(method: str) -> None:
    assert run(method, problem(new=0)).shape == (0, WIDTH)


def test_methods_without_a_donor_need_none(method: str) -> None:
    if make(method).donor_use() == "none":
        task = dataclasses.replace(problem(), donor=None)
        np.testing.assert_array_equal(run(method, task), run(method, problem()))


def test_half_precision_source(method: str) -> None:
    """A bfloat16 matrix gives nearly the rows of the float32 one."""
    import torch

    from tokswap.checkpoint.embeddings import Columns

    task = problem()
    rows = torch.from_numpy(task.source.rows(np.arange(len(task.source)))).bfloat16()
    raw = rows.contiguous().view(torch.uint8).numpy()
    half = dataclasses.replace(task, source=EmbeddingSpace(task.source.vocabulary, [Columns(raw, "BF16")]))
    np.testing.assert_allclose(run(method, half), run(method, problem()), rtol=0.05, atol=0.05)


def test_cost_grows_with_the_problem(method: str) -> None:
    initializer = make(method)
    assert 0 <= initializer.flops(10, 100, 32) <= initializer.flops(1000, 100, 32)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_describes_itself(method: str) -> None:
    cls = method_class(method)
    assert cls.summary
    assert cls.reference
    assert cls.__doc__
    for field in dataclasses.fields(cls):
        assert declared(field).help, f"{method}.{field.name} has no help"


def test_methods_load_nothing_that_reads_files() -> None:
    """What they need from disk comes from `problem.context.resources`."""
    modules = {path.partition(":")[0] for path in METHODS.values()}
    code = f"import sys, {', '.join(sorted(modules))}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    allowed = {"tokswap.init.resources", "tokswap.init.resources.protocol"}
    readers = ("tokswap.init.resources", "tokswap.hypernet", "tokswap.checkpoint.reader", "tokswap.storage")
    assert [name for name in done.stdout.split() if name.startswith(readers) and name not in allowed] == []


# --- what single methods promise ---------------------------------------------------------------------------------


def test_subword_is_the_mean_of_the_pieces() -> None:
    task = problem()
    rows = run("subword", task)
    for n in range(NEW):
        ids = task.pieces.ids[task.pieces.start[n] : task.pieces.start[n + 1]]
        wanted = task.source.rows(ids).mean(axis=0) if len(ids) else task.source_mean
        np.testing.assert_allclose(rows[n], wanted, rtol=1e-5, atol=1e-6)


def test_the_mean_leaves_reserved_rows_out() -> None:
    task = problem()
    trained = task.source.rows(np.arange(SHARED)).mean(axis=0)
    np.testing.assert_allclose(run("mean", task), np.tile(trained, (NEW, 1)), rtol=1e-4, atol=1e-5)


def test_gaussian_has_the_moments_of_the_source() -> None:
    task = problem(new=4000)
    rows = run("gaussian", task)
    trained = task.source.rows(np.arange(SHARED))
    np.testing.assert_allclose(rows.mean(axis=0), trained.mean(axis=0), atol=0.15)
    np.testing.assert_allclose(np.cov(rows.T), np.cov(trained.T), atol=0.25)


# --- settings ----------------------------------------------------------------------------------------------------


def test_settings_are_read_as_the_type_of_their_field() -> None:
    made = make_initializer("omp", {"k": "32", "tolerance": "0.01", "exact": "yes"})
    assert (made.k, made.tolerance, made.exact) == (32, 0.01, True)


@pytest.mark.parametrize(
    ("name", "settings", "code", "says"),
    [
        ("omb", {}, "unknown-method", "Did you mean `omp`?"),
        ("omp", {"kk": 3}, "unknown-setting", "Did you mean `k`?"),
        ("omp", {"k": 0}, "bad-setting", "at least 1"),
        ("omp", {"k": -3}, "bad-setting", "at least 1"),
        ("omp", {"k": "many"}, "bad-setting", "a whole number"),
        ("omp", {"k": 1.5}, "bad-setting", "a whole number, not 1.5"),
        ("omp", {"k": True}, "bad-setting", "a whole number, not True"),
        ("omp", {"exact": 2}, "bad-setting", "True or False, not 2"),
        ("zett", {"path": 5}, "bad-setting", "text, not 5"),
        ("omp", {5: 5}, "unknown-setting", "no setting `5`"),
        ("omp", {"k": "1.5"}, "bad-setting", "a whole number"),
        ("omp", {"tolerance": "nan"}, "bad-setting", "at least 0"),
        ("omp", {"tolerance": 2}, "bad-setting", "at most 1"),
        ("omp", {"centre": "perhaps"}, "bad-setting", "true or false"),
        ("mean", {"k": 3}, "unknown-setting", "no setting `k`"),
        ("subword", {"weights": "frist"}, "bad-setting", "Did you mean `first`?"),
    ],
)
def test_bad_settings(name: str, settings: dict[str, object], code: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_initializer(name, settings)
    assert caught.value.code == code
    assert says in str(caught.value)
