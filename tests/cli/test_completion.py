from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from tokswap.cli import COMMANDS, main
from tokswap.init.registry import METHODS
from tokswap.storage.resolve import set_alias


def offered(line: str) -> dict[str, str]:
    """What is offered for the last word of a command line: value -> kind."""
    *words, last = line.split(" ")[1:]
    items = ShellComplete(main, {}, "tokswap", "_TOKSWAP_COMPLETE").get_completions(words, last)
    return {item.value: item.type for item in items}


def test_commands_and_flags() -> None:
    assert set(offered("tokswap ")) == set(COMMANDS)
    assert set(offered("tokswap tra")) == {"transplant"}
    assert {"--report", "--init", "--init-output"} <= set(offered("tokswap transplant --"))
    assert set(offered("tokswap transplant --bos ")) == {"auto", "keep"}
    assert "import" in offered("tokswap hypernet ")


def test_methods() -> None:
    assert list(offered("tokswap transplant --init ")) == list(METHODS)
    assert list(offered("tokswap methods om")) == ["omp"]
    assert list(offered("tokswap transplant --model a --init-output sub")) == ["subword"]


def test_settings_of_the_chosen_method() -> None:
    assert offered("tokswap transplant --init omp --set k") == {"k=64": "plain"}
    assert set(offered("tokswap transplant --init omp --set exact")) == {"exact=true", "exact=false"}
    assert "weights=first" in offered("tokswap transplant --init subword --set w")
    assert "hidden=1024" in offered("tokswap transplant --set ")
    for wrong in ("no-such-method", "0.5*omp+0.5*subword"):
        assert offered(f"tokswap transplant --init {wrong} --set ") == {}


def test_models_are_aliases_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKSWAP_HOME", str(tmp_path))
    set_alias("llamalike", "./x")
    for line in (
        "transplant --model",
        "transplant --tokenizer",
        "trim --model",
        "verify",
        "eval",
        "eval a --against",
        "compare a",
        "inspect",
        "alias",
    ):
        assert offered(f"tokswap {line} lla") == {
            "lla": "file",
            "llama": "plain",
            "llama-8b": "plain",
            "llamalike": "plain",
        }
    found = offered("tokswap verify ./my")
    assert found == {"./my": "file"}
    (tmp_path / "aliases.json").write_text("{")
    assert "llama" in offered("tokswap verify lla")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell], prog_name="tokswap")
    assert result.exit_code == 0
    assert f"_TOKSWAP_COMPLETE={shell}_complete" in result.stdout
    assert result.stdout.count("tokswap") > 2


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
def test_bash_completes_with_it(tmp_path: Path) -> None:
    """As in a terminal: the script is read, and the function that it defines is asked for the third word."""
    command = tmp_path / "tokswap"
    root = Path(__file__).parent.parent.parent
    code = "from tokswap.cli import main; main(prog_name='tokswap')"
    command.write_text(f'#!/bin/sh\nPYTHONPATH="{root}" exec "{sys.executable}" -c "{code}" "$@"\n')
    command.chmod(0o755)
    script = (
        'eval "$(tokswap completion bash)"\n'
        "COMP_WORDS=(tokswap methods kri) COMP_CWORD=2\n_tokswap_completion tokswap kri methods\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, timeout=120)
    assert done.stdout.strip() == "kriging", done.stderr
