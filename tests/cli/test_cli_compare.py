"""`tokswap compare` with the flags that measure, for people, programs and pages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
from click.testing import CliRunner

from tokswap.cli import main

ENGLISH, GERMAN = (str(makers.TEXTS / f"{name}.txt") for name in ("english", "german"))


def run(*arguments: object) -> Any:
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


def test_everything_that_is_measured_is_shown(model_of: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_text("bridge\n\n ferry \n", encoding="utf-8")
    pair = model_of("llama-tied", vocab_size=640), model_of("llama", vocab_size=640)
    flags = ["--text", ENGLISH, "--parallel", ENGLISH, "--parallel", GERMAN, "--terms", tmp_path / "terms.txt"]
    flags += ["--every-token", "--undertrained"]
    facts = json.loads(run(*pair, *flags, "--json").stdout)
    assert facts["terms"][0]["terms"] == 2
    assert [one["tied"] for one in facts["undertrained"]] == [True, False]
    done = run(*pair, *flags, "--report", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    assert done.stderr == f"report page: {tmp_path / 'page.html'}\n"
    assert run(*pair, "-q", "--report", tmp_path / "quiet.html").stderr == ""
    page = (tmp_path / "page.html").read_text("utf-8")
    renyi = f"{facts['on_texts']['english.txt'][0]['renyi']:.3f}"
    parity = f"{facts['parity'][1]['german.txt']:.3f}"
    per_term = f"{facts['terms'][0]['tokens_per_term']:.3f}"
    for shown in (renyi, parity, per_term, "Renyi efficiency", "2 terms", "tokens that OCR errors leave"):
        assert shown in done.stdout
        assert shown in page
    assert "hardly been trained on" in done.stdout
    assert "hardly been trained on" in page


def test_one_language_is_no_comparison(model_of: Callable[..., Path]) -> None:
    source = model_of("llama-tied", vocab_size=640)
    done = run(source, source, "--parallel", ENGLISH)
    assert done.exit_code == 2
    assert "--parallel" in done.stderr


def test_json_lines_are_measured_by_their_text(model_of: Callable[..., Path], tmp_path: Path) -> None:
    source, text = model_of("llama-tied", vocab_size=640), makers.shipped_text("english")[:400]
    (tmp_path / "plain.txt").write_text(text, encoding="utf-8")
    (tmp_path / "lines.jsonl").write_text(json.dumps({"body": text}) + "\n", encoding="utf-8")
    names = [word for name in ("plain.txt", "lines.jsonl") for word in ("--text", tmp_path / name)]
    facts = json.loads(run(source, source, *names, "--field", "body", "--json").stdout)
    assert facts["tokens_per_byte"]["plain.txt"] == facts["tokens_per_byte"]["lines.jsonl"]
