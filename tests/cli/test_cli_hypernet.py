"""tokswap hypernet: its commands, their output and their errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import makers
import pytest
from click.testing import CliRunner
from hypernets import make_hypernet

from tokswap.cli import main


def run(*args: object, status: int = 0) -> str:
    result = CliRunner().invoke(main, [str(arg) for arg in args], prog_name="tokswap")
    assert result.exit_code == status, result.output
    return result.stdout


@pytest.fixture
def hypernet(model_of: Callable[..., Path], tmp_path: Path) -> Path:
    return make_hypernet(model_of("llama"), tmp_path / "hn", base_model="llama", hn_embed_lang_id=True, n_langs=2)


def test_info(hypernet: Path) -> None:
    text = run("hypernet", "info", hypernet)
    for words in (
        "llama",
        "600 source embeddings of width 32",
        "input, output",
        "2 without names",
        "2 layers of width 16",
    ):
        assert words in text
    facts = json.loads(run("hypernet", "info", hypernet, "--json"))
    assert (facts["source_rows"], facts["predicts"], facts["languages"]) == (600, ["input", "output"], 2)


def test_import(hypernet: Path, tmp_path: Path) -> None:
    (tmp_path / "codes.txt").write_text("de\nen\n")
    out = tmp_path / "an output"
    text = run("hypernet", "import", hypernet, "--out", out, "--languages", tmp_path / "codes.txt")
    assert "de en" in text
    assert text.endswith(f"next: tokswap transplant ... --init zett --set 'path={out}'\n")
    assert json.loads(run("hypernet", "import", hypernet, "--out", tmp_path / "o2", "--json"))["width"] == 32
    assert run("hypernet", "import", hypernet, "--out", tmp_path / "o3", "--quiet").strip() == str(tmp_path / "o3")
    assert '"output-exists"' in run("hypernet", "import", hypernet, "--out", out, "--json", status=1)
    assert '"bad-text"' in run("hypernet", "import", hypernet, "--out", out, "--languages", out, "--json", status=1)
    assert '"unknown-model"' in run("hypernet", "import", "./nowhere", "--out", out, "--json", status=1)


SMALL = (
    *("--steps", 1, "--identity-steps", 1, "--batch", 2, "--length", 16, "--identity-batch", 8, "--vocabulary", 600),
    *("--negatives", 10, "--queue", 2, "--hidden", 16, "--layers", 1),
)


def train(base: Path, out: Path, *more: object, status: int = 0) -> str:
    text = makers.TEXTS / "code.txt"
    return run("hypernet", "train", "--model", base, "--text", text, "--out", out, *SMALL, *more, status=status)


def test_train_and_use(model_of: Callable[..., Path], tmp_path: Path) -> None:
    out, base = tmp_path / "hn", model_of("llama-tied")
    assert f"--init zett --set path={out}" in train(base, out)
    assert '"output-exists"' in train(base, out, "--json", status=1)
    assert '"bad-setting"' in train(base, out, "--layers", 0, "--json", status=2)
    words = ("--model", base, "--tokenizer", model_of("llama"), "--init", "zett", "--set", f"path={out}")
    plan = run("transplant", *words, "--dry-run")
    assert "initialised by zett" in plan


def test_only_the_main_process_prints(
    model_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    out, base = tmp_path / "hn", model_of("llama-tied")
    assert train(base, out, "--json") == ""
    assert (out / "config.json").is_file()
    assert train(base, out, "--json", status=1) == "", "the error goes to stderr alone"


def test_the_examples_run(model_of: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Dynamic tokenization saves tokens, and without merges it is the model itself."""
    import sys

    sys.path.insert(0, str(Path(__file__).parent.parent.parent / "examples"))
    import dynamic_tokenization as example

    assert example.merge([[b"a", b"b", b" a", b"b", b"a", b"b"]], 1) == [[b"ab", b" a", b"b", b"ab"]]
    assert example.merge([[b"a", b" a"], [b"a", b" a"]], 3) == [[b"a", b" a"], [b"a", b" a"]]
    base = model_of("llama-tied")
    folder = make_hypernet(base, tmp_path / "hn")
    text = str(makers.TEXTS / "english.txt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["example", str(base), str(folder), text, "--length", "60", "--merges", "0", "20"])
        example.main()
    none, some = (line.split() for line in capsys.readouterr().out.splitlines()[-2:])
    assert (none[0], none[1], none[3]) == ("0", "0.0%", "+0.0000")
    assert some[0] == "20"
    assert float(some[1].rstrip("%")) > 5
