"""A flag that was typed counts, or the command says that it does not: nobody should believe that it has."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from commands import one_document, run

MODEL = "--model M"
IDLE = {
    f"transplant {MODEL} --tokenizer T --gguf-type f16": "--gguf",
    f"trim {MODEL} --lang de --gguf-type f16": "--gguf",
    f"extend {MODEL} --tokens t --gguf-type f16": "--gguf",
    f"draft {MODEL} --target T --gguf-type f16": "--gguf",
    f"transplant {MODEL} --tokenizer T --heal-train new": "--heal",
    f"trim {MODEL} --lang de --heal-train new": "--heal",
    f"extend {MODEL} --tokens t --heal-train new": "--heal",
    f"ensemble prepare {MODEL} --model N --tokenizer T --out O --heal-train new": "--heal",
    f"draft {MODEL} --target T --self-text-lang de": "--self-text",
    "heal M --text t --self-text-lang de": "--self-text",
    "heal M --text t --train full --rank 4": "--train adapter",
    "heal M --text t --train new --rate 0.1": "--train adapter or --train full",
    f"trim {MODEL} --lang de --min-count 3": "--corpus",
    f"trim {MODEL} --keep-script Latin --coverage 0.9": "--corpus or --lang or --words",
    f"extend {MODEL} --corpus c --add 3 --forms both": "--tokens",
    "generate M prompt --fim-markers a,b,c": "--suffix",
    "generate M prompt --fim-order spm": "--suffix",
    "generate M prompt --seed 3": "--sample or --temperature",
    "ensemble generate AB --prompt p --seed 3": "--sample or --temperature",
    "eval M --text TEXT --questions 3": "--probe",
    "eval M --text TEXT --harness-path d": "--harness",
    "eval M --text TEXT --harness-limit 3": "--harness",
    "tokenizer train --corpus c --size 600 --out o --word-share 0.5": "--superwords",
    "tokenizer train --corpus c --size 600 --out o --seed 3": "--supertokens",
    "tokenizer train --corpus c --size 600 --out o --like M --family unigram": "--like",
    f"ensemble prepare {MODEL} --model N --tokenizer T --out O --text TEXT": "--tokenizer auto",
    "ensemble eval M N --byte-level --text TEXT --prompt p": "--byte-level",
    "ensemble eval M N --byte-level --text TEXT --tokens 3": "--byte-level",
    "ensemble eval M N --byte-level --text TEXT --seed 3": "--byte-level",
    "ensemble eval M N --byte-level --text TEXT --sources": "--byte-level",
    f"draft-head {MODEL} --target T --check --size 9": "--check",
    f"draft-head {MODEL} --target T --check --dry-run": "--check",
    "trim --model ADAPTER --like M --target-size 9": "adapter",
    "trim --model ADAPTER --like M --report page.html": "adapter",
    "extend --model ADAPTER --like M --gguf file.gguf": "adapter",
    "extend --model ADAPTER --like M --heal TEXT": "adapter",
}
"""A command line whose last flag has no effect -> what the message says of why."""


@pytest.mark.parametrize("line", IDLE)
def test_a_flag_without_effect_is_refused(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ADAPTER").mkdir()
    Path("ADAPTER/adapter_config.json").write_text("{}", "utf-8")
    Path("TEXT").write_text("a text", "utf-8")
    error = one_document(run(*shlex.split(line), "--json", status=2).stdout)["error"]
    flag = [word for word in line.split() if word.startswith("--")][-1]
    assert error["code"] == "idle-option"
    assert error["message"].startswith(f"{flag} has no effect ")
    assert IDLE[line] in error["message"]
    assert json.dumps(error["hint"]) != '""'
