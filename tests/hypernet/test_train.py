"""Training: it learns, resumes after a kill and stops at a non-finite loss; several processes do what one does."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import numpy as np
import pytest

from tokswap.errors import InputError, OutputError, UsageError
from tokswap.hypernet import load_hypernet
from tokswap.hypernet.prepare import pad_id, prepare
from tokswap.hypernet.settings import TrainSettings
from tokswap.hypernet.train import train
from tokswap.tokenizer.tokenizer import read_tokenizer
from tokswap.tokenizer.vocabulary import Kind, Vocabulary

ROOT = Path(__file__).parent.parent.parent
TEXT = makers.TEXTS / "english.txt"
SMALL: dict[str, Any] = {
    "steps": 6,
    "identity_steps": 6,
    "batch": 4,
    "length": 24,
    "identity_batch": 32,
    "vocabulary": 600,
    "negatives": 40,
    "queue": 3,
    "hidden": 16,
    "layers": 1,
    "save_every": 4,
    "rate": 1e-3,
}


def small(**changes: Any) -> TrainSettings:
    return TrainSettings(**{**SMALL, **changes})


def flags(settings: dict[str, Any]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--" + key.replace("_", "-"), str(value))]


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "training" / "metrics.jsonl").read_text("utf-8").splitlines()]


def weights(folder: Path) -> dict[str, np.ndarray]:
    return {name: t.numpy() for name, t in load_hypernet(folder).network.state_dict().items()}


def same(first: Path, second: Path, atol: float = 0.0) -> None:
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], rtol=0, atol=atol, err_msg=name)


@pytest.fixture(scope="module")
def base(model_of: Callable[..., Path]) -> Path:
    return model_of("llama", adds_bos=True)  # untied, SentencePiece, with bos before every text


@pytest.fixture(scope="module")
def plain(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the result of a run without a kill."""
    return train(str(base), [TEXT], tmp_path_factory.mktemp("plain") / "out", small())


@pytest.mark.slow
def test_it_learns(base: Path, tmp_path: Path) -> None:
    settings = small(steps=40, identity_steps=80, identity_rate=2e-2, rate=1e-2, split=0.0, hidden=32, lexical=1.0)
    seen: list[int] = []
    train(str(base), [TEXT], tmp_path / "out", settings, each_step=seen.append)
    lines = metrics(tmp_path / "out")
    assert [line["step"] for line in lines] == seen == list(range(120))
    first, last = ([line["loss"] for line in lines if line["stage"] == stage] for stage in ("identity", "main"))
    assert np.mean(first[-5:]) < 0.8 * np.mean(first[:5])
    assert np.mean(last[-5:]) < np.mean(last[:5])
    assert {"token_loss", "lexical", "bits_per_byte", "sampling_seconds", "model_seconds"} <= set(lines[-1])


def test_the_result_is_a_hypernetwork_for_its_model(base: Path, plain: Path, tmp_path: Path) -> None:
    import tokswap

    config = load_hypernet(plain).config
    assert (config.n_embd, config.original_vocab_size, config.separate_out_embeddings) == (32, 600, True)
    spelled = makers.read_json(plain / "tokenizer.json")
    ids = [*spelled["model"]["vocab"].values(), *(entry["id"] for entry in spelled["added_tokens"])]
    assert max(ids) == 600 + config.hn_n_extra_tokens - 1, "each id past the model's rows has an embedding"
    report = tokswap.transplant_tokenizer(
        str(base),
        str(makers.make_tokenizer("unigram", tmp_path / "target", vocab_size=400)),
        init="zett",
        settings={"path": str(plain)},
        out=tmp_path / "out",
    )
    assert report.plan.coverage["missing"] > 100


@pytest.mark.parametrize("architecture", ["llama-tied", "gpt-neox", "gemma3"])
def test_other_models(architecture: str, model_of: Callable[..., Path], tmp_path: Path) -> None:
    """Tied; with a pad that torch would give no gradient; scaled by the width (Gemma)."""
    train(str(model_of(architecture)), [TEXT], tmp_path / "out", small(identity_steps=1, steps=2))
    assert load_hypernet(tmp_path / "out").config.separate_out_embeddings is (architecture == "gpt-neox")


def test_no_text_contains_the_pad(tmp_path: Path) -> None:
    """GPT-2 has no pad, and its id 0 is an exclamation mark."""
    folder = makers.make_tokenizer("byte-level", tmp_path / "tokenizer")
    own = read_tokenizer(folder).vocabulary
    assert pad_id(own, 603) == own.roles["pad"]
    makers.edit_json(folder / "tokenizer_config.json", pad_token=..., bos_token=..., eos_token=...)
    without_roles = read_tokenizer(folder).vocabulary
    assert without_roles.kind[pad_id(without_roles, 603)] in (Kind.SPECIAL, Kind.UNUSED)
    bare = Vocabulary(["!", "a"], [b"!", b"a"], np.array([Kind.NORMAL] * 2, np.uint8))
    assert pad_id(bare, 256) == 256
    unused = Vocabulary(["!", "<unused0>"], [b"!", b""], np.array([Kind.NORMAL, Kind.UNUSED], np.uint8))
    assert pad_id(unused, 256) == 1


# Kills.

KILLED = """
import os, signal, sys
from tokswap.hypernet.train import train, TrainSettings
def each_step(step):
    if step == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
train(sys.argv[1], [sys.argv[2]], sys.argv[3], TrainSettings(**eval(sys.argv[5])), resume=True, each_step=each_step)
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def test_it_resumes_after_a_kill(base: Path, plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(base), str(TEXT), str(out), "9", repr(SMALL)], env=environment(), check=False
    )
    assert run.returncode == -signal.SIGKILL
    assert [line["step"] for line in metrics(out)] == list(range(10))
    load_hypernet(out)  # of step 8
    partial = out / "training" / "step-00000010.partial"
    partial.mkdir()  # what a kill leaves in the middle of saving
    with open(out / "training" / "metrics.jsonl", "a") as file:
        file.write('{"step": 10, "lo')
    seen: list[int] = []
    train(str(base), [TEXT], out, small(), resume=True, each_step=seen.append)
    assert seen == [8, 9, 10, 11]
    assert [line["step"] for line in metrics(out)] == list(range(12))
    assert sorted(path.name for path in (out / "training").glob("step-*")) == ["step-00000008", "step-00000012"]
    assert not partial.exists()
    same(out, plain, atol=2e-5)  # threads may sum in another order
    settings = out / "training" / "settings.json"
    began = json.loads(settings.read_text("utf-8"))
    del began["settings"]["field"]  # a run that began before there was this setting
    settings.write_text(json.dumps(began))
    train(str(base), [TEXT], out, small(), resume=True, each_step=seen.append)  # nothing is left to do
    assert seen == [8, 9, 10, 11]


def test_it_resumes_before_the_first_checkpoint(base: Path, tmp_path: Path) -> None:
    def stop(step: int) -> None:
        seen.append(step)
        if step == 1:
            raise KeyboardInterrupt

    seen: list[int] = []
    settings = small(steps=1, identity_steps=2)
    with pytest.raises(KeyboardInterrupt):
        train(str(base), [TEXT], tmp_path, settings, each_step=stop)
    train(str(base), [TEXT], tmp_path, settings, resume=True, each_step=seen.append)
    assert seen == [0, 1, 0, 1, 2]
    assert [line["step"] for line in metrics(tmp_path)] == [0, 1, 2]


def test_a_run_is_not_written_over(base: Path, plain: Path) -> None:
    before = (plain / "model.safetensors").read_bytes()
    with pytest.raises(OutputError) as caught:
        train(str(base), [TEXT], plain, small())
    assert caught.value.code == "output-exists"
    assert "--resume" in str(caught.value)
    with pytest.raises(UsageError) as changed:
        train(str(base), [TEXT], plain, small(rate=2e-3, seed=1), resume=True)
    assert changed.value.code == "settings-changed"
    assert "rate, seed" in str(changed.value)
    assert (plain / "model.safetensors").read_bytes() == before


def test_something_else_is_not_written_into(base: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError) as caught:
        train(str(base), [TEXT], tmp_path, small(), resume=True)
    assert caught.value.code == "output-exists"
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(OutputError):  # before a model is looked for
        train("./nowhere", [TEXT], tmp_path)


# What is wrong with numbers and inputs.


def test_it_stops_at_a_non_finite_loss(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError) as caught:
        train(str(base), [TEXT], out, small(rate=1e30, clip=0.0, save_every=6))
    assert caught.value.code == "training-diverged"
    assert "checkpoint of step 6 is kept" in str(caught.value)
    assert (out / "training" / "step-00000006").is_dir()
    assert all(np.isfinite(value).all() for value in weights(out).values())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"steps": -1}, "--steps must be at least 0"),
        ({"steps": 0, "identity_steps": 0}, "nothing to do"),
        ({"warmup": 1.5}, "at most 1"),
        ({"vocabulary": 100}, "--vocabulary must be at least 512"),
        ({"lexical": float("nan")}, "--lexical"),
    ],
)
def test_bad_settings(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        small(**changes)
    assert caught.value.code == "bad-setting"
    assert says in str(caught.value)


def test_a_text_longer_than_the_positions(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--length must be at most 127: the model has 128 positions"):
        train(str(base), [TEXT], tmp_path / "out", small(length=128))
    assert prepare(str(base), [TEXT], small(length=127)).settings.length == 127
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("architecture", ["t5", "bart"])
def test_encoder_decoders(architecture: str, model_of: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        train(str(model_of(architecture)), [TEXT], tmp_path / "out", small())
    assert caught.value.code == "not-causal"


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        train("./nowhere", [TEXT], tmp_path / "out")
    assert caught.value.code == "unknown-model"
    assert not (tmp_path / "out").exists()


def test_training_needs_accelerate(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(InputError) as caught:
        train(str(base), [TEXT], tmp_path / "out", small())
    assert caught.value.code == "missing-extra"


def test_the_rate_follows_the_schedule() -> None:
    settings = small(steps=100, identity_steps=10, rate=1.0, identity_rate=0.5, warmup=0.1)
    rates = [settings.rate_at(step) for step in range(settings.all_steps)]
    np.testing.assert_allclose(rates[:10], np.linspace(0.05, 0.5, 10))
    np.testing.assert_allclose(rates[10:20], np.linspace(0.1, 1.0, 10))
    assert max(rates) == 1.0
    assert all(a >= b for a, b in itertools.pairwise(rates[19:]))
    np.testing.assert_allclose(rates[-1], 0.1, atol=1e-3)


# Several processes.


def test_two_processes_do_what_one_does(base: Path, plain: Path, tmp_path: Path) -> None:
    """The same whole batch, on two CPU processes that are started as `accelerate launch` starts them on two devices."""
    out = tmp_path / "out"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    inputs = ["--model", str(base), "--text", str(TEXT), "--out", str(out)]
    command = [*launcher, "-m", "tokswap", "hypernet", "train", *inputs, *flags(SMALL), "--json"]
    run = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    assert json.loads(run.stdout)["out"] == str(out), "one process prints"
    assert len(list((out / "training" / "step-00000012").glob("random_states_*"))) == 2, "there were two processes"
    same(out, plain, atol=2e-5)
    one, two = metrics(plain), metrics(out)
    for name in ("loss", "norm"):
        np.testing.assert_allclose([line[name] for line in two], [line[name] for line in one], rtol=1e-4)


def test_a_batch_that_cannot_be_shared(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import accelerate

    monkeypatch.setattr(accelerate.Accelerator, "num_processes", property(lambda self: 3))
    with pytest.raises(UsageError, match="multiple of the 3 processes"):
        train(str(base), [TEXT], tmp_path / "out", small())
