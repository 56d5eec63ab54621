"""Backends: a Ray cluster of two machines (two nodes on this one) gives the same results as this process."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import makers
import numpy as np
import pytest
from click.testing import CliRunner

import tokswap
from tokswap import distributed as cluster
from tokswap.checkpoint.embeddings import EmbeddingSpace
from tokswap.cli import main
from tokswap.distributed import LOCAL, Backend, Ray, find_backend
from tokswap.errors import ClusterError, InputError, TokswapError, UsageError
from tokswap.init.base import Context, Pieces, Problem
from tokswap.init.methods.omp import OMP
from tokswap.tokenizer.alignment import align
from tokswap.tokenizer.tokenizer import read_tokenizer
from tokswap.tokenizer.vocabulary import Kind, Vocabulary
from tokswap.trim import corpora
from tokswap.trim.corpora import count, find_corpus

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ray]:
    """A cluster of two nodes with one processor each, which this process is connected to by a token."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        token = tmp_path_factory.mktemp("ray") / "token"
        token.write_text("0" * 64)
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))  # and not one in the user's home
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")  # other tests may fill the memory
        patch.setenv("RAY_worker_niceness", "0")  # 15 else, and other tests run beside
        logging.getLogger("ray").setLevel(logging.ERROR)
        node = {"num_cpus": 1, "object_store_memory": 100 << 20}
        nodes = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        nodes.add_node(**node)
        patch.setenv("RAY_ADDRESS", nodes.address)
        # Workers get the functions of this file as they are, and need not be able to import it.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield Ray()
        ray.shutdown()
        nodes.shutdown()


# The backend.


def machine_of(shared: np.ndarray, part: int, done: Callable[[int], object]) -> tuple[str, bool, float]:
    time.sleep(0.1)
    done(part)
    return ray.get_runtime_context().get_node_id(), shared.flags.writeable, float(shared[part])


def test_parts_are_done_on_both_machines_in_order(backend: Ray) -> None:
    shared, said = np.arange(1000.0), list[int]()
    handler = signal.getsignal(signal.SIGTERM)
    results = list(backend.map(machine_of, range(12), shared, said.append))
    assert [value for _, _, value in results] == list(range(12))
    assert said == list(range(12))
    assert signal.getsignal(signal.SIGTERM) is handler, "Ray's own ends the process, and nothing is tidied up"
    assert len({node for node, _, _ in results}) == 2
    assert not any(writeable for _, writeable, _ in results), "each read in place"


def number(shared: int, part: int, done: Callable[[int], object]) -> int:
    return shared + part


@pytest.mark.parametrize("name", ["local", "ray"])
def test_parts_are_asked_for_as_they_are_needed(name: str, backend: Ray) -> None:
    asked = 0

    def parts() -> Iterator[int]:
        nonlocal asked
        while True:
            asked += 1
            yield asked

    results = find_backend(name).map(number, parts(), 100)
    for n in range(1, 20):
        assert next(results) == 100 + n
        assert asked - n <= cluster._AHEAD * 2
    results.close()
    assert asked < 40


def test_nothing_to_do_is_no_trouble(backend: Ray) -> None:
    assert list(backend.map(number, [], 0)) == []
    assert list(LOCAL.map(number, [], 0)) == []


def fail(shared: Path, part: int, done: Callable[[int], object]) -> int:
    if part == 3:
        raise InputError("bad-text", "this is wrong", "do it well", file_name=shared)
    if part == 4:
        raise ZeroDivisionError("a fault of the program")
    return part


@pytest.mark.parametrize("name", ["local", "ray"])
def test_an_error_of_a_part_is_the_same_error(name: str, backend: Ray) -> None:
    results = find_backend(name).map(fail, [1, 2, 3], Path("a file"))
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(InputError) as caught:
        next(results)
    assert type(caught.value) is InputError
    assert str(caught.value) == "this is wrong  [bad-text]\n  file name: a file\n\nhint: do it well"
    with pytest.raises(ZeroDivisionError, match="a fault of the program"):
        list(find_backend(name).map(fail, [4], Path("a file")))


def test_every_error_survives_a_pickle() -> None:
    for kind in (TokswapError, UsageError, ClusterError):
        error = pickle.loads(pickle.dumps(kind("a-code", "it broke", "mend it", the_file="x")))
        assert (type(error), error.code, error.message, error.hint) == (kind, "a-code", "it broke", "mend it")
        assert error.where == {"the file": "x"}


def test_machines_with_another_release_are_refused(backend: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_version", lambda: "0.0.7")
    with pytest.raises(ClusterError) as caught:
        list(backend.map(number, [1], 1))
    assert caught.value.code == "worker-differs"
    assert "and this is 0.0.7" in caught.value.message


def test_machines_without_a_module_are_refused(backend: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("def work(shared, part, done): return part\n")
    monkeypatch.syspath_prepend(tmp_path)
    only_here = import_module("only_here")
    with pytest.raises(ClusterError) as caught:
        list(backend.map(only_here.work, [1], 1))
    assert caught.value.code == "worker-differs"
    assert caught.value.message.endswith("No module named 'only_here'")


def test_a_large_total_makes_parts_for_all_processors(backend: Ray) -> None:
    assert LOCAL.part(10**6, 16384) == 16384
    assert [backend.part(total, 16384) for total in (0, 100, 8000, 10**6)] == [256, 256, 1000, 16384]
    assert backend.part(8000, 100) == 100


@pytest.mark.parametrize("address", ["127.0.0.1:1", "not-an-address", "127.0.0.1:99999999"])
def test_a_cluster_that_does_not_answer_is_an_error(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", address)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ClusterError) as caught:
        Ray().part(1, 1)
    assert (caught.value.code, caught.value.where) == ("no-cluster", {"RAY ADDRESS": address})
    assert signal.getsignal(signal.SIGTERM) is before


def test_backends_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_backend("local") is LOCAL
    with pytest.raises(UsageError) as wrong:
        find_backend("dask")
    assert wrong.value.code == "unknown-engine"
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError) as caught:
        find_backend("ray")
    assert (caught.value.code, caught.value.hint) == ("missing-extra", "pip install 'tokswap[distributed]'")


# Work that runs on a cluster.


def test_a_corpus_is_counted_alike(
    backend: Ray, tokenizer_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpora, "_BATCH", 1 << 13)
    tokenizer = read_tokenizer(tokenizer_of("sentencepiece", vocab_size=900))
    for n, text in enumerate(makers.shipped_texts()):
        (tmp_path / f"{n}.txt").write_text(text * 24, "utf-8")
    corpus, said = find_corpus(str(tmp_path)), {"local": list[int](), "ray": list[int]()}
    here, there = (
        count(corpus, tokenizer, backend=where, progress=said[where.name].append) for where in (LOCAL, backend)
    )
    assert len(said["local"]) >= 8
    assert said["local"] == said["ray"]
    assert np.array_equal(here.counts, there.counts)
    assert (here.bytes, here.sample, here.total) == (there.bytes, there.sample, there.total)
    assert here.bytes == sum(file.stat().st_size for file in corpus.files)


def test_faults_of_a_file_are_found_here(backend: Ray, tokenizer_of: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"good\n" * 10**6 + b"\xff")
    with pytest.raises(InputError) as caught:
        count(find_corpus(str(tmp_path / "a.txt")), read_tokenizer(tokenizer_of("byte-level")), backend=backend)
    assert caught.value.code == "bad-text"


MIXED = 5
"""Shared tokens that each new token is mixed of."""


def problem(shared: int, new: int, width: int, backend: Backend) -> Problem:
    """Donor rows of new tokens are a mix of a few others, in shares of one: no rounding can make another mix as good."""
    rng = np.random.default_rng(0)
    vocabularies = [
        Vocabulary(words, [word.encode() for word in words], np.full(len(words), Kind.NORMAL, np.uint8))
        for words in ([f"w{n}" for n in range(shared)], [f"w{n}" for n in range(shared + new)])
    ]
    donor = rng.standard_normal((shared + new, width)).astype(np.float32)
    shares = rng.uniform(0.6, 1.4, (new, MIXED))
    shares /= shares.sum(axis=1, keepdims=True)
    donor[shared:] = np.einsum("nm,nmd->nd", shares, donor[mixed(shared, new)])
    source = rng.standard_normal((shared, 8)).astype(np.float32)
    alignment = align(vocabularies[1], vocabularies[0])
    return Problem(
        source=EmbeddingSpace.from_array(vocabularies[0], source),
        donor=EmbeddingSpace.from_array(vocabularies[1], donor),
        target=vocabularies[1],
        alignment=alignment,
        missing=alignment.missing,
        pieces=Pieces.from_lists([[]] * new),
        context=Context(backend=backend),
    )


def mixed(shared: int, new: int) -> np.ndarray:
    """The shared tokens that each new token is mixed of, int64 [new, MIXED]."""
    rng = np.random.default_rng(1)
    return np.stack([np.sort(rng.choice(shared, MIXED, replace=False)) for _ in range(new)])


@pytest.mark.parametrize("settings", [{"exact": True}, {}, {"centre": True, "ridge": 0.1}], ids=str)
def test_matching_pursuit_gives_the_same_rows(settings: dict[str, Any], backend: Ray) -> None:
    """With more atoms than are searched exactly, in parts of another size than here, of which one is not full."""
    tasks = [problem(5000, 700, 96, where) for where in (LOCAL, backend)]
    method = OMP(k=8, **settings)
    found = [method(task) for task in tasks]
    codes = [next(iter(task.context.cache.values())) for task in tasks]
    for code in codes:
        assert (code.diagnostics["support"] == MIXED).all()
        assert np.array_equal(np.sort(code.atoms[:, :MIXED]), mixed(5000, 700))
    orders = [np.argsort(code.atoms[:, :MIXED]) for code in codes]
    here, there = (np.take_along_axis(code.weights, order, 1) for code, order in zip(codes, orders, strict=True))
    np.testing.assert_allclose(here, there, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[0].rows, found[1].rows, rtol=1e-5, atol=1e-6)
    assert found[0].diagnostics.keys() == found[1].diagnostics.keys()
    assert np.linalg.norm(found[0].rows) > 1


def test_the_size_of_a_part_changes_nothing() -> None:
    class Parted:
        name, used, map = "parted", False, LOCAL.map

        def part(self, total: int, most: int) -> int:
            return 77

    method = OMP(k=8)
    rows = [method(problem(5000, 200, 96, where)).rows for where in (LOCAL, Parted())]
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-5, atol=1e-6)


def invoke(*arguments: object, status: int = 0) -> Any:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return result


def test_the_command_line(backend: Ray, model_of: Callable[..., Path], tmp_path: Path) -> None:
    model, other = model_of("qwen2"), model_of("llama")
    for name in ("local", "ray"):
        command = ("transplant", "--model", other, "--tokenizer", model, "--init", "omp", "--backend", name, "-q")
        assert invoke(*command, "--out", tmp_path / name).stdout == f"{tmp_path / name}\n"
        command = ("trim", "--model", model, "--corpus", makers.TEXTS / "english.txt", "--backend", name, "-q")
        invoke(*command, "--out", tmp_path / f"trim {name}")
    for kind in ("", "trim "):
        here, there = (tmp_path / f"{kind}{name}" for name in ("local", "ray"))
        assert (here / "model.safetensors").read_bytes() == (there / "model.safetensors").read_bytes()
        assert (here / "tokenizer.json").read_bytes() == (there / "tokenizer.json").read_bytes()
        assert makers.read_json(there / "tokswap.json")["plan"]["options"]["backend"] == "ray"


def test_other_methods_say_that_they_are_computed_here(
    backend: Ray, model_of: Callable[..., Path], tmp_path: Path
) -> None:
    options = {"init": "mean", "backend": "ray"}
    report = tokswap.transplant_tokenizer(
        str(model_of("llama")), str(model_of("qwen2")), out=tmp_path / "out", **options
    )
    assert any("--backend ray had nothing to do" in note for note in report.notes)
    options = {"init": "omp", "backend": "ray"}
    report = tokswap.transplant_tokenizer(
        str(model_of("llama")), str(model_of("qwen2")), out=tmp_path / "out2", **options
    )
    assert not any("--backend" in note for note in report.notes)


def test_a_device_and_a_cluster_do_not_go_together(model_of: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        tokswap.transplant_tokenizer(
            str(model_of("llama")), str(model_of("qwen2")), out=tmp_path / "out", device="cuda", backend="ray"
        )
    assert caught.value.code == "bad-device"
    cluster.check_backend(LOCAL, "cuda")  # this process computes where it is told to


def test_without_ray_nothing_is_written(
    model_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    model, out = model_of("qwen2"), tmp_path / "out"
    for command in (
        ("transplant", "--model", model, "--tokenizer", model_of("llama")),
        ("trim", "--model", model, "--corpus", makers.TEXTS / "english.txt"),
    ):
        result = invoke(*command, "--backend", "ray", "--out", out, status=1)
        assert "--backend ray needs Ray  [missing-extra]" in result.stderr
    assert list(tmp_path.iterdir()) == []


# Workers that die: last, since those that take their place have everything to load again.


def die(shared: Path, part: int, done: Callable[[int], object]) -> int:
    """End the worker in the middle of part 2: the first time, or, where there is no file to note it in, every time."""
    if part == 2 and not shared.exists():
        if shared.parent.exists():
            shared.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 10 * part


def test_a_killed_worker_is_replaced(backend: Ray, tmp_path: Path) -> None:
    assert list(backend.map(die, range(5), tmp_path / "killed")) == [0, 10, 20, 30, 40]
    assert (tmp_path / "killed").exists()


def test_a_worker_that_is_lost_for_good_is_an_error(
    backend: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = ray.remote
    monkeypatch.setattr(ray, "remote", lambda function: remote(max_retries=0)(function))  # a try takes seconds
    results = backend.map(die, range(5), tmp_path / "not there" / "killed")
    assert [next(results), next(results)] == [0, 10]
    with pytest.raises(ClusterError) as caught:
        next(results)
    assert caught.value.code == "worker-lost"
    assert "Traceback" not in str(caught.value)
