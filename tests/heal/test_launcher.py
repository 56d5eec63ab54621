"""Launchers that divide a model among devices are refused; the variables are those that `accelerate launch` sets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import tokswap
from tokswap.cli import main
from tokswap.errors import InputError, UsageError
from tokswap.options.launcher import check_launcher

Make = Callable[..., Path]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that gives this process what `accelerate launch` gives its processes."""
    from accelerate.commands.launch import launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    def launch(*flags: str) -> None:
        whole = ["--num_processes=2", "--num_machines=1", "--gpu_ids=all", "--mixed_precision=no"]
        given = launch_command_parser().parse_args([*whole, "--dynamo_backend=no", *flags, "tokswap"])
        for name, value in prepare_multi_gpu_env(given).items():
            monkeypatch.setenv(name, value)

    return launch


@pytest.mark.parametrize("flag", ["--use_fsdp", "--use_megatron_lm", "--use_parallelism_config"])
def test_what_accelerate_launch_asks_for(flag: str, launched: Callable[..., None], tmp_path: Path) -> None:
    launched(flag)
    with pytest.raises(UsageError) as caught:
        tokswap.plan_heal(tmp_path / "gone", [tmp_path / "gone.txt"])
    assert caught.value.code == "cannot-shard", "before anything is read"


def test_data_parallelism_is_taken(launched: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    launched()
    check_launcher()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")
    check_launcher()


def test_the_commands(model_of: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    model, other = model_of("llama", vocab_size=640), model_of("gpt-neox", vocab_size=700, seed=5)
    out, text = tmp_path / "out", tmp_path / "text.txt"
    text.write_text("The old bridge was closed for repairs.\n" * 200)
    for command in (
        ["heal", str(model), "--teacher", str(model), "--text", str(text)],
        ["transplant", "--model", str(model), "--tokenizer", str(other), "--heal", str(text)],
        ["draft", "--model", str(model), "--target", str(other), "--distill", str(text)],
        ["hypernet", "train", "--model", str(model), "--text", str(text)],
    ):
        done = CliRunner().invoke(main, [*command, "--out", str(out), "--json"])
        found = json.loads(done.stdout)["error"]
        assert (done.exit_code, found["code"]) == (2, "cannot-shard"), command
        assert "DeepSpeed" in found["message"]
        assert not out.exists()
    with pytest.raises(InputError) as caught:
        tokswap.plan_transplant(model, tmp_path / "gone", out=out)
    assert caught.value.code != "cannot-shard", "nothing is trained"
