"""Flags that many commands share: in each of them they reach what they name."""

from __future__ import annotations

import json
import logging
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from commands import one_document, run
from makers import copy_model, edit_json, make_model, shipped_text, shipped_texts

from tokswap.cli import COMMANDS, main

Make = Callable[..., Path]
LINES = {
    "transplant": "--model A --tokenizer B --init omp --dry-run",
    "trim": "--model A --corpus ENGLISH --dry-run",
    "extend": "--model A --tokens TERMS --init mean --dry-run",
    "heal": "A --teacher B --text TEXT --dry-run",
    "draft": "--model A --target B --init omp --dry-run",
    "draft-head": "--model A --target A --corpus TEXT --size 300 --dry-run",
    "ensemble prepare": "--model A --model B --tokenizer B --init omp --out AB --dry-run",
    "ensemble check": "AA",
    "ensemble generate": "A B --byte-level --prompt The",
    "ensemble eval": "A B --byte-level --text TEXT",
    "generate": "A The",
    "verify": "A",
    "eval": "A --text TEXT",
    "tokenizer train": "--like A --corpus TEXT --size-sweep 600 --dry-run",
}
"""A command line of each command that loads a model or makes one, which stops before it writes."""


def with_flag(flag: str) -> list[str]:
    """Every command that has a flag."""
    found = {}
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        below = command.commands if isinstance(command, click.Group) else {"": command}
        found |= {f"{name} {sub}".strip(): one for sub, one in below.items()}
    return [name for name, one in found.items() if one and any(flag in param.opts for param in one.params)]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, one with code of its own, an ensemble without and one with code, a text and a list of terms."""
    folder = tmp_path_factory.mktemp("ground")
    for name in ("A", "B"):
        make_model("llama" if name == "A" else "qwen2", folder / name, vocab_size=640)
        edit_json(folder / name / "config.json", max_position_embeddings=4096)
    make_model("llama", folder / "shards", family="byte-level", vocab_size=700, shards=4)
    own = copy_model(folder / "A", folder / "own")
    code = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own", "AutoTokenizer": [None, "own.Own"]}
    edit_json(own / "config.json", model_type="own", auto_map=code)
    edit_json(own / "tokenizer_config.json", tokenizer_class="Own", auto_map=code)
    (own / "tokenizer.json").unlink()
    (own / "vocab.json").write_text("{}", "utf-8")
    (own / "own.py").write_text("raise ImportError('the code runs')\n", "utf-8")
    (folder / "TEXT").write_text("".join(shipped_texts())[:20_000], "utf-8")
    (folder / "ENGLISH").write_text(shipped_text("english"), "utf-8")
    (folder / "records.jsonl").write_text(json.dumps({"text": shipped_text("english")}) + "\n", "utf-8")
    (folder / "TERMS").write_text("bridgehead\n", "utf-8")
    (folder / "WORDS").write_text("\n".join(shipped_text("russian").split()), "utf-8")
    (folder / "NOTE").write_text("The old bridge was closed.\n", "utf-8")
    shutil.copytree(folder / "A", folder / "A2")
    pair = ("--model", folder / "A", "--model", folder / "A2", "--tokenizer", folder / "A")
    run("ensemble", "prepare", *pair, "--out", folder / "AA", "-q")
    shutil.copytree(folder / "AA", folder / "OO")
    shutil.copytree(own, folder / "OO" / "A", dirs_exist_ok=True)
    (folder / "OO" / "A" / "tokenizer.json").unlink()
    return folder


WRITING = {
    "transplant": "--model shards --tokenizer A --init gaussian",
    "draft": "--model shards --target A --init gaussian",
    "extend": "--model shards --tokens TERMS --init gaussian",
    "ensemble prepare": "--model shards --model A --tokenizer A --init gaussian",
    "trim": "--model shards --corpus ENGLISH",
}
"""A command line of each command that writes a changed model, up to its output."""


@pytest.mark.parametrize("command", WRITING)
def test_what_a_run_writes(command: str, ground: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The seed decides random rows, links stand for files that stay as they are, and llama.cpp gets its file."""
    monkeypatch.chdir(ground)
    line = f"{command} {WRITING[command]}"
    has_seed, has_gguf = command in with_flag("--seed"), command in with_flag("--gguf")
    one, other, file = tmp_path / "one", tmp_path / "other", tmp_path / "one.gguf"
    flags = " --seed 1" * has_seed + f" --gguf {file} --gguf-type f16" * has_gguf
    run(*shlex.split(f"{line} -q --out {one} --link{flags}"))
    run(*shlex.split(f"{line} -q --out {other}" + " --seed 2" * has_seed))
    written = [{file.relative_to(out): file for file in sorted(out.rglob("*.safetensors"))} for out in (one, other)]
    linked = [{file.stat().st_nlink > 1 for file in files.values()} for files in written]
    assert linked == [{True, False}, {False}]
    same = [one.read_bytes() == two.read_bytes() for one, two in zip(*(x.values() for x in written), strict=True)]
    assert all(same) != has_seed
    assert any(same)
    if has_gguf:
        from gguf import GGMLQuantizationType, GGUFReader

        kinds = {one.tensor_type for one in GGUFReader(file).tensors if len(one.shape) == 2}
        assert kinds == {GGMLQuantizationType.F16}


def code_of(line: str) -> str:
    """The error code that a command line ends with, "" for none."""
    done = CliRunner().invoke(main, [*shlex.split(line), "--json"], prog_name="tokswap")
    assert done.exception is None or isinstance(done.exception, (SystemExit, ImportError)), done.output
    return json.loads(done.stdout)["error"]["code"] if done.exit_code == 2 or '"error"' in done.stdout else ""


PLANS = {
    "transplant --trim-corpus TEXT --trim-size 390": lambda old, new: rows(new) == 390,
    "transplant --trim-corpus TEXT --trim-size 390 --pad-to-multiple 8": lambda old, new: rows(new) == 384,
    "transplant --memory 1GiB": lambda old, new: new["memory_bytes"] - old["memory_bytes"] > 7e8,
    "draft --memory 1GiB": lambda old, new: new["memory_bytes"] - old["memory_bytes"] > 7e8,
    "extend --forms bare": lambda old, new: {one[1] for one in new["added"]} >= {"'bridgehead'", "'br'"},
    "extend --forms both": lambda old, new: {one[1] for one in new["added"]} >= {"'bridgehead'", "' bridgehead'"},
    "extend --pad-to-multiple 64": lambda old, new: rows(new) == 704,
    "trim --keep-script Cyrillic": lambda old, new: rows(new) > rows(old) + 50,
    "trim --words WORDS": lambda old, new: rows(new) > rows(old) + 20,
    "trim --coverage 0.5": lambda old, new: 0.5 <= new["corpora"][0]["kept"] < 0.6,
    "trim --min-count 9": lambda old, new: 0.5 < new["corpora"][0]["kept"] < 1,
    "trim --target-size 420 --pad-to-multiple 32": lambda old, new: rows(new) == 416,
    "heal --rank 4": lambda old, new: new["train"]["parameters"] < old["train"]["parameters"],
    "heal --train embeddings": lambda old, new: new["train"]["parameters"] == 2 * 640 * 32,
    "heal --epochs 4": lambda old, new: new["train"]["steps"] > 1.9 * old["train"]["steps"],
    "heal --batch-tokens 2048": lambda old, new: new["train"]["steps"] < old["train"]["steps"] / 3,
    "heal --held-out 0.5": lambda old, new: new["text"]["held_out"] == 2 * old["text"]["held_out"],
    "heal --gradient-checkpointing": lambda old, new: new["estimate"]["memory_bytes"] < old["estimate"]["memory_bytes"],
}
"""A command and a flag -> what the plan says with the flag, beside the plan without it."""


def rows(plan: Any) -> int:
    found: int = plan["tables"][0]["shape_after"][0]
    return found


def plan_of(line: str) -> Any:
    return one_document(run(*shlex.split(line), "--json").stdout)["plan"]


@pytest.mark.parametrize("flags", PLANS)
def test_what_a_plan_says(flags: str, ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ground)
    command, more = flags.split(" ", 1)
    line = f"{command} {LINES[command]}"
    assert PLANS[flags](plan_of(line), plan_of(f"{line} {more}"))


OTHERS = {
    "hypernet import": "A --out O",
    "hypernet info": "A",
    "hypernet train": "--model A --text TEXT --out O",
    "inspect": "A",
    "compare": "A B",
    "report": "A",
}


@pytest.mark.parametrize("command", with_flag("--verbose"))
def test_talk(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How much is said is settled first of all: here there is nothing to work on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.getLogger("tokswap"), "level", logging.WARNING)
    line = f"{command} {(LINES | OTHERS)[command]}"
    for flag, level in (("-q", logging.WARNING), ("--verbose", logging.DEBUG)):
        assert CliRunner().invoke(main, shlex.split(f"{line} {flag}"), prog_name="tokswap").exit_code
        assert logging.getLogger("tokswap").level == level


@pytest.mark.parametrize("command", with_flag("--device"))
def test_the_device(command: str, ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ground)
    assert code_of(f"{command} {LINES[command]} --device nothing") == "bad-device"


@pytest.mark.parametrize("command", with_flag("--push-to-hub"))
def test_only_a_finished_result_is_shown_or_uploaded(
    command: str, ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ground)
    line = f"{command} {LINES[command]}"
    flags = ["--push-to-hub a/b", *(["--report page.html"] if command in with_flag("--report") else [])]
    assert {code_of(f"{line} {flag}") for flag in flags} == {"bad-usage"}
    asked: list[str] = []
    monkeypatch.setattr("tokswap.storage.hub.check_push", lambda name: asked.append(name) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(*shlex.split(f"{line} --push-to-hub a/b".replace(" --dry-run", "")))
    assert asked == ["a/b"]


@pytest.mark.parametrize("command", with_flag("--heal-train"))
def test_what_the_last_step_trains(command: str, ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan checks that the model has what is to be trained."""
    monkeypatch.chdir(ground)
    line = f"{command} {LINES[command]} --heal TEXT --heal-train"
    monkeypatch.setattr("tokswap.heal.inputs.check_parts", lambda model, reach, train: seen.append(train))
    seen: list[str] = []
    for what in ("full", "embeddings"):
        run(*shlex.split(f"{line} {what}"))
    assert list(dict.fromkeys(seen)) == ["full", "embeddings"]


TYPED = (
    "generate A The --tokens 2",
    "eval A --text NOTE --tokens 0",
    "ensemble generate AA --prompt The --tokens 2",
    "ensemble generate A B --byte-level --prompt The --tokens 2",
    "ensemble eval AA --text NOTE --tokens 0",
    "ensemble eval A B --byte-level --text NOTE",
)


@pytest.mark.parametrize("line", TYPED)
def test_the_type_that_models_compute_in(line: str, ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def note(module: torch.nn.Module, given: object, found: torch.Tensor) -> None:
        if isinstance(module, torch.nn.Linear):
            seen.add(found.dtype)

    monkeypatch.chdir(ground)
    seen: set[torch.dtype] = set()
    with torch.nn.modules.module.register_module_forward_hook(note):
        for flag, wanted in (("", torch.float32), (" --dtype bfloat16", torch.bfloat16)):
            run(*shlex.split(f"{line}{flag} -q"))
            assert seen == {wanted}
            seen.clear()


def test_every_command_with_a_type_is_tried() -> None:
    assert {name for name in with_flag("--dtype") if any(one.startswith(f"{name} ") for one in TYPED)} == {
        *with_flag("--dtype")
    } - {"heal"}


READS = {
    "transplant": "--trim-corpus TEXT",
    "extend": "--corpus TEXT --add 3",
    "draft": "--distill TEXT",
    "ensemble prepare": "--heal TEXT",
    "compare": "--text TEXT",
}
"""What lets a command read a text, where its line does not do so."""


@pytest.mark.parametrize("command", with_flag("--field"))
def test_the_field_of_records(command: str, ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ground)
    line = f"{command} {(LINES | OTHERS)[command]} {READS.get(command, '')}"
    assert code_of(re.sub("TEXT|ENGLISH", "records.jsonl", f"{line} --field words")) == "missing-field"


@pytest.mark.parametrize("flag", ["trim --lang", "transplant --trim-lang", "heal --self-text 9kB --self-text-lang"])
def test_languages(flag: str, ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word list takes seconds to read; one that is not there shows that the flag was read."""
    monkeypatch.chdir(ground)
    command, more = flag.split(" ", 1)
    assert code_of(f"{command} {LINES[command]} {more} xx") == "unknown-language"


@pytest.mark.parametrize("command", with_flag("--backend"))
def test_the_backend(command: str, ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ground)
    monkeypatch.setattr("tokswap.distributed.find_spec", lambda name: None)
    assert code_of(f"{command} {LINES[command]} --backend ray") == "missing-extra"


@pytest.mark.parametrize("command", with_flag("--trust-remote-code"))
def test_trust(command: str, ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ground)
    line = re.sub(r"\bA\b", "own", f"{command} {LINES[command]}").replace("AA", "OO")
    answers = [CliRunner().invoke(main, shlex.split(f"{line}{flag}")).output for flag in ("", " --trust-remote-code")]
    refused = [bool(re.search("--trust-remote-code|contains custom code", answer)) for answer in answers]
    assert refused == [True, False], answers
