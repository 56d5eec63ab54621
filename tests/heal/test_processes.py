"""Several processes share a healing: each with the whole body, or each with a part of it (`--shard`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tools
import torch
from makers import copy_model, shipped_text

import tokswap
from tokswap.errors import InputError, UsageError
from tokswap.heal.shards import divide, layers_of
from tokswap.heal.team import Team

Make = Callable[..., Path]

QUICK = {"batch_tokens": 400, "rate": 0.02, "embedding_rate": 0.1, "epochs": 1}
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text((4 * (shipped_text("english") + shipped_text("german")))[:10_000], encoding="utf-8")
    return path


def experts(source: Path, folder: Path) -> Path:
    """A model whose experts transformers joins when it loads them."""
    from transformers import MixtralConfig, MixtralForCausalLM

    copy_model(source, folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_local_experts": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    rows = json.loads((source / "config.json").read_text("utf-8"))["vocab_size"]
    config = MixtralConfig(vocab_size=rows, max_position_embeddings=256, **sizes, **heads)
    MixtralForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def students(model_of: Make, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models with another tokenizer."""
    work = tmp_path_factory.mktemp("students")
    tied = model_of("llama-tied", vocab_size=640)
    target = model_of("gpt-neox", vocab_size=700, seed=5)
    for name, source in {"llama": tied, "experts": experts(tied, work / "source")}.items():
        tokswap.transplant_tokenizer(str(source), str(target), init="subword", out=work / name)
    return {name: work / name for name in ("llama", "experts")}


@pytest.fixture(scope="module")
def together(students: dict[str, Path], text: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """What two processes found in several healings, and the folder of their results."""
    work = tmp_path_factory.mktemp("together")
    more = {
        "whole": {"model": "llama"},
        "shard": {"model": "llama", "shard": True},
        "experts": {"model": "experts", "shard": True},
        "adapter": {"model": "llama", "shard": True, "save": "adapter"},
        "written": {"model": "llama", "shard": True, "self_text": 2000},
    }
    healings = {name: _healing(students, text, work / name, **options) for name, options in more.items()}
    uneven = _healing(students, text, work / "uneven", model="llama", minutes=0.1)
    given = {"healings": healings, "uneven": uneven, "model": str(students["llama"]), "found": str(work / "found.json")}
    (work / "given.json").write_text(json.dumps(given), "utf-8")
    program = Path(__file__).parent / "two_processes.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKSWAP_CACHE": str(work / "cache")}
    run = subprocess.run(
        [*LAUNCHER, str(program), str(work / "given.json")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,  # processes that wait for one another would wait forever
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return json.loads((work / "found.json").read_text("utf-8")), work


def _healing(students: dict[str, Path], text: Path, out: Path, *, model: str, **options: Any) -> dict[str, Any]:
    return {"model": str(students[model]), "texts": [str(text)], "options": {"out": str(out), **QUICK, **options}}


def test_two_processes_do_what_one_does(students: dict[str, Path], text: Path, together: Any, tmp_path: Path) -> None:
    alone = tokswap.heal_model(students["llama"], [text], out=tmp_path / "one", **QUICK)
    for name in ("whole", "shard"):
        found = together[0][name]
        assert found["processes"] == 2
        for key in ("loss", "held_out"):
            np.testing.assert_allclose(found[key], alone.healing[key], rtol=1e-3, atol=1e-3)
        _equal(together[1] / name, tmp_path / "one")


def _equal(folder: Path, other: Path) -> None:
    """Compare the weights of two models. AdamW moves weights with tiny gradients by their sign, which may be chance."""
    old, new = tools.weights(folder), tools.weights(other)
    assert old.keys() == new.keys()
    for name, one in old.items():
        np.testing.assert_allclose(one.float(), new[name].float(), atol=0.02, err_msg=name)


def test_each_process_has_its_part_of_the_layers(together: Any) -> None:
    assert together[0]["parts"] == [0.5, 1.0]


def test_a_divided_model_whose_experts_are_joined(
    students: dict[str, Path], text: Path, together: Any, tmp_path: Path
) -> None:
    alone = tokswap.heal_model(students["experts"], [text], out=tmp_path / "one", **QUICK)
    assert alone.healing["excess_after"]["all"] < alone.healing["excess_before"]["all"]
    np.testing.assert_allclose(together[0]["experts"]["loss"], alone.healing["loss"], rtol=1e-3, atol=1e-3)
    _equal(together[1] / "experts", tmp_path / "one")


def test_an_adapter_of_a_divided_model(students: dict[str, Path], together: Any) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    ids = torch.arange(5, 25)[None]
    merged = AutoModelForCausalLM.from_pretrained(together[1] / "shard", dtype="float32")
    base = AutoModelForCausalLM.from_pretrained(students["llama"], dtype="float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT uses what transformers deprecates
        adapted = PeftModel.from_pretrained(base, together[1] / "adapter")
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, adapted(input_ids=ids).logits, atol=1e-3)


def test_a_divided_teacher_writes_the_same_text(
    students: dict[str, Path], text: Path, together: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKSWAP_CACHE", str(tmp_path))
    tokswap.heal_model(students["llama"], [text], out=tmp_path / "one", self_text=2000, **QUICK)
    written = [next((folder / "heal").glob("written-*")) for folder in (tmp_path, together[1] / "cache")]
    assert written[0].name == written[1].name
    assert written[0].read_text("utf-8") == written[1].read_text("utf-8")


def test_the_leader_says_how_much_text_there_is_time_for(together: Any) -> None:
    found = together[0]["uneven"]
    assert found["processes"] == 2, "both took the same steps, or they would wait for one another"


# What can go wrong.


def test_what_cannot_be_divided(
    students: dict[str, Path], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(model: Any, **options: Any) -> str:
        with pytest.raises(UsageError) as caught:
            tokswap.plan_heal(model, [text], out=tmp_path / "out", shard=True, **options)
        assert caught.value.code == "bad-setting"
        return caught.value.message

    student = students["llama"]
    assert "there is one" in refused(student)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "--train full" in refused(student, train="full")
    planned = tokswap.plan_heal(student, [text], out=tmp_path / "out", shard=True)
    assert "in memory" in refused(_loaded(student), teacher=student)
    assert "in memory" in refused(student, teacher=_loaded(student))
    monkeypatch.setattr("torch.distributed.fsdp.fully_shard", lambda module, *, mesh: module)
    assert "needs a torch" in refused(student)
    whole = tokswap.plan_heal(student, [text], out=tmp_path / "out")
    assert planned.plan.estimate.memory_bytes < whole.plan.estimate.memory_bytes


def _loaded(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def test_layers_that_share_weights_cannot_be_divided() -> None:
    class Body(torch.nn.Module):
        def __init__(self, *layers: torch.nn.Module) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(layers)

    shared = torch.nn.Linear(4, 4)
    for body, why in ((Body(shared, torch.nn.Sequential(shared)), "share weights"), (Body(), "no list of layers")):
        with pytest.raises(InputError) as caught:
            divide(body, Team(), "cpu")
        assert caught.value.code == "cannot-divide"
        assert why in caught.value.message
    experts = Body(*(Body(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)) for _ in range(3)))
    assert layers_of(experts) == list(experts.layers), "lists inside of layers are theirs"
