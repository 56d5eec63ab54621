"""What a run refuses, its plan refuses with the same code: no work is done in vain."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from commands import run
from makers import make_model, shipped_text, shipped_texts

from tokswap.cli import main

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models that read long passages, a changed one, and texts of which most cannot be trained on."""
    folder = tmp_path_factory.mktemp("ground")
    for name in ("llama", "qwen2"):
        model = make_model(name, folder / name)
        config = json.loads((model / "config.json").read_text("utf-8"))
        (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4096}), "utf-8")
    run(
        "transplant",
        "--model",
        folder / "llama",
        "--tokenizer",
        folder / "qwen2",
        "--init",
        "mean",
        "-q",
        "--out",
        folder / "changed",
    )
    whole = "".join(shipped_texts())
    files = {
        "few.txt": shipped_text("english")[:6500],  # in five passages
        "one.txt": "again and again " * 2000,
        "empty.txt": "",
        "zero.txt": "a\0b" * 5000,
        "enough.txt": whole[:20_000],
        "words.vec": "hello world\n",
        "uneven.vec": "hello 1 2\nworld 1\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    return folder


def outcome(*args: object) -> str:
    """The code of an error."""
    result = CliRunner().invoke(main, [str(arg) for arg in args], prog_name="tokswap")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    found = re.findall(r"\[([a-z-]+)\]$", result.output, re.MULTILINE)
    return found[0] if result.exit_code else ""


TRAINING = ["transplant", "draft", "trim", "extend", "ensemble", "heal"]


def line(command: str, ground: Path) -> list[object]:
    """A command, up to the flag that names text to train on."""
    model = ["--model", ground / "llama"]
    return {
        "transplant": ["transplant", *model, "--tokenizer", ground / "qwen2", "--init", "mean", "--heal"],
        "draft": ["draft", *model, "--target", ground / "qwen2", "--init", "mean", "--distill"],
        "trim": ["trim", *model, "--corpus", ground / "enough.txt", "--field", "text", "--heal"],
        "extend": ["extend", *model, "--corpus", ground / "enough.txt", "--add", 3, "--init", "mean", "--heal"],
        "ensemble": [
            "ensemble",
            "prepare",
            *model,
            "--model",
            ground / "qwen2",
            "--tokenizer",
            ground / "qwen2",
            "--init",
            "mean",
            "--heal",
        ],
        "heal": ["heal", ground / "changed", "--text"],
    }[command]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("few.txt", "text-too-small"),
        ("one.txt", "text-too-small"),  # two passages, again and again
        ("empty.txt", "empty-text"),
        ("zero.txt", "bad-text"),
        ("absent.txt", "bad-text"),
    ],
)
@pytest.mark.parametrize("command", TRAINING)
def test_text_to_train_on(command: str, name: str, code: str, ground: Path, tmp_path: Path) -> None:
    args = [*line(command, ground), ground / name, "--out", tmp_path / "out"]
    assert [outcome(*args, "--dry-run"), outcome(*args)] == [code, code]


@pytest.mark.parametrize("command", ["eval", "ensemble eval --byte-level", "ensemble prepare", "compare"])
def test_the_field_of_a_text_to_measure(command: str, ground: Path, tmp_path: Path) -> None:
    """Where a file has several, the one that is named counts: here it has no words."""
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "some words", "body": " "}) + "\n", "utf-8")
    models = [ground / "llama", ground / "qwen2"][: 1 if command == "eval" else 2]
    given = [*models]
    if "prepare" in command:
        given = [*(word for model in models for word in ("--model", model)), "--tokenizer", "auto"]
        given += ["--out", tmp_path / "out"]
    args = [*command.split(), *given, "--text", tmp_path / "a.jsonl", "--field", "body"]
    assert outcome(*args) == "empty-text"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--self-text", 10), "text-too-small"),
        (("--self-text", 9000, "--self-text-lang", "xx"), "unknown-language"),
        (("--self-text", 9000, "--track", "nobody"), "bad-setting"),
        (("--self-text", 9000, "--device", "meta"), "bad-device"),
    ],
)
def test_text_that_the_teacher_writes(more: tuple[object, ...], code: str, ground: Path, tmp_path: Path) -> None:
    args = ["heal", ground / "changed", *more, "--out", tmp_path / "out"]
    assert [outcome(*args, "--dry-run"), outcome(*args)] == [code, code]


@pytest.mark.parametrize("size", [10, 9000])
def test_a_text_of_ones_own_must_be_enough_to_judge_by(size: int, ground: Path, tmp_path: Path) -> None:
    args = [*line("draft", ground), ground / "few.txt", "--self-text", size, "--out", tmp_path / "out"]
    assert [outcome(*args, "--dry-run"), outcome(*args)] == ["text-too-small"] * 2


@pytest.mark.parametrize("vectors", ["words.vec", "uneven.vec"])
def test_word_vectors(vectors: str, ground: Path, tmp_path: Path) -> None:
    args = [
        "transplant",
        "--model",
        ground / "llama",
        "--tokenizer",
        ground / "qwen2",
        "--init",
        "wechsel",
        "--set",
        f"vectors={ground / vectors}",
        "--out",
        tmp_path / "out",
    ]
    assert outcome(*args) == "bad-vectors"
    assert outcome(*args, "--dry-run") == ("bad-vectors" if vectors == "words.vec" else "")  # its first word is fine
