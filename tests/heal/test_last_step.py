"""Healing as the last step of a command: what is in the output folder while it trains, and after."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tools
from commands import run
from makers import copy_model, shipped_text

from tokswap.heal.stages import Learnt
from tokswap.heal.train import HealTrainer

Make = Callable[..., Path]

COMMANDS = [
    "ensemble",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("transplant", "extend", "trim", "draft")),
]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(((shipped_text("english") + shipped_text("german")) * 2)[:7_000], encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def flags(text: Path, model_of: Make) -> dict[str, list[Any]]:
    """Each command that trains what it makes, without --out."""
    source, target = model_of("llama-tied", vocab_size=640), model_of("gpt-neox", vocab_size=700, seed=5)
    method = ["--init", "subword", "-q"]
    return {
        "transplant": ["transplant", "--model", source, "--tokenizer", target, "--heal", text, *method],
        "trim": ["trim", "--model", source, "--corpus", text, "--heal", text, "-q"],
        "extend": ["extend", "--model", source, "--corpus", text, "--add", 20, "--heal", text, "-q"],
        "draft": ["draft", "--model", source, "--target", target, "--distill", text, *method],
        "ensemble": [
            *["ensemble", "prepare", "--model", source, "--model", target, "--tokenizer", target],
            *["--heal", text, *method],
        ],
    }


_DIES = """
import os, runpy, signal, sys
from tokswap.heal.train import HealTrainer

step, sys.argv[1:] = int(sys.argv[1]), sys.argv[2:]
compute = HealTrainer.compute_loss

def dies(self, *given, **named):
    if self.state.global_step == step:
        os.kill(os.getpid(), signal.SIGKILL)
    return compute(self, *given, **named)

HealTrainer.compute_loss = dies
runpy.run_module("tokswap", run_name="__main__")
"""


def killed(*args: object, step: int) -> None:
    """Run a command in a process that is killed when it begins a step of the training."""
    ended = subprocess.run([sys.executable, "-c", _DIES, str(step), *map(str, args)], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def result_of(command: str, out: Path) -> Path:
    """Return the folder of the model that a command trains."""
    return out / "made" if command == "ensemble" else out


@pytest.mark.parametrize("command", COMMANDS)
def test_a_kill_while_it_trains_leaves_nothing_and_the_next_run_goes_on(
    command: str, flags: dict[str, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    killed(*flags[command], "--out", out, step=4)
    if command == "ensemble":
        assert [path.name for path in out.iterdir() if not path.name.startswith(".")] == ["ensemble.json"]
    else:
        assert not out.exists()
    seen: list[int] = []
    compute = HealTrainer.compute_loss
    watch = lambda self, *given, **named: (seen.append(self.state.global_step), compute(self, *given, **named))[1]  # noqa: E731
    monkeypatch.setattr(HealTrainer, "compute_loss", watch)
    run(*flags[command], "--out", out)
    assert 0 < seen[0] <= 4, "it began at a checkpoint"
    assert not [path for path in (*tmp_path.iterdir(), *out.iterdir()) if path.name.startswith(".")]
    report = json.loads((result_of(command, out) / "tokswap.json").read_text("utf-8"))
    assert report["heal"]["loss"][0][0] == 1, "the report knows the steps before"
    assert report["heal"]["model"] == report["heal"]["out"] == report["plan"]["out"]


def test_what_was_there_stays_until_the_training_is_done(
    flags: dict[str, list[Any]], model_of: Make, tmp_path: Path
) -> None:
    out = copy_model(model_of("llama-tied", vocab_size=640), tmp_path / "out")
    before = tools.snapshot(out)
    killed(*flags["draft"], "--out", out, "--force", step=4)
    assert tools.snapshot(out) == before
    run(*flags["draft"], "--out", tmp_path / "whole")
    run(*flags["draft"], "--out", out, "--force")
    one, other = (tools.snapshot(folder)["model.safetensors"] for folder in (tmp_path / "whole", out))
    assert one == other != before["model.safetensors"]


@pytest.mark.parametrize("command", ["transplant", "trim"])
def test_a_failure_leaves_nothing(
    command: str, flags: dict[str, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: Any, **named: Any) -> Any:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(HealTrainer, "train", fails)
    with pytest.raises(RuntimeError, match="gone"):
        run(*flags[command], "--out", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["transplant", "trim"])
def test_a_result_that_training_does_not_improve_is_written_without_it(
    command: str, flags: dict[str, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Learnt, "better", False)
    out, file = tmp_path / "out", tmp_path / "model.gguf"
    document = json.loads(run(*flags[command], "--out", out, "--gguf", file, "--json").stdout)
    report = json.loads((out / "tokswap.json").read_text("utf-8"))
    assert "heal" not in report
    for notes in (document["notes"], report["notes"]):
        assert any("healing did not help" in note and "written without it" in note for note in notes)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "model.gguf"}
    assert report["plan"]["out"] == str(out)


def test_adapters_can_follow_a_trained_trim(flags: dict[str, list[Any]], tmp_path: Path) -> None:
    plain = [*flags["trim"]]
    at = plain.index("--heal")
    del plain[at : at + 2]
    run(*flags["trim"], "--out", tmp_path / "trained")
    run(*plain, "--out", tmp_path / "plain")
    one, other = ((tmp_path / name / "vocab_map.json").read_bytes() for name in ("trained", "plain"))
    assert one == other
