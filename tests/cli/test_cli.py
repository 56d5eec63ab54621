from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import click
import pytest
import tools
from click.testing import CliRunner
from commands import one_document, run
from makers import copy_model, edit_json, shipped_text

import tokswap
from tokswap.cli import COMMANDS, main

Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Aliases of one test are no business of the next, and the surroundings of the tests keep their settings."""
    monkeypatch.setenv("TOKSWAP_HOME", str(tmp_path_factory.mktemp("home")))
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE", "TOKSWAP_DEBUG"):
        monkeypatch.setenv(name, "")  # so that what a command sets goes away again
        monkeypatch.delenv(name)


def process(*args: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from tokswap.cli import main; main(prog_name='tokswap')", *map(str, args)]
    # Without a network: nothing here may leave the machine.
    env = {**os.environ, "HF_HUB_OFFLINE": "1", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)


@pytest.fixture(scope="module")
def models(model_of: Make) -> tuple[Path, Path]:
    return model_of("llama", vocab_size=640), model_of("gpt2", vocab_size=700, rows=707)


# Help.


def test_the_help_page_lists_every_command_and_an_example() -> None:
    for flag in ("--help", "-h"):
        text = run(flag).stdout
        assert all(re.search(rf"^  {name} ", text, re.M) for name in COMMANDS)
        assert "Examples:" in text


def _names() -> list[str]:
    """Every command, and the subcommands of those that have some."""
    tops = {name: main.get_command(click.Context(main), name) for name in COMMANDS}
    below = [f"{name} {sub}" for name, top in tops.items() if isinstance(top, click.Group) for sub in top.commands]
    return [*tops, *below]


@pytest.mark.parametrize("name", _names())
def test_every_command_has_help_with_an_example(name: str) -> None:
    text = run(*name.split(), "--help").stdout
    assert "Examples:" in text
    assert f"tokswap {name}" in text.partition("Examples:")[2]
    first, *below = name.split()
    command = main.get_command(click.Context(main), first)
    if below and isinstance(command, click.Group):
        command = command.commands[below[0]]
    assert command is not None
    assert command.help
    if isinstance(command, click.Group):
        return
    options = [param for param in command.params if isinstance(param, click.Option)]
    assert [option.name for option in options if not option.help] == []
    # A shell reads what `completion` prints; it has no document to give.
    assert name == "completion" or "--json" in {flag for option in options for flag in option.opts}


def _examples() -> list[str]:
    """Every `tokswap ...` line of the help pages, continued lines joined."""
    pages = [main.help or ""]
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        pages.append(str(command.epilog))
    text = "\n".join(page.partition("Examples:")[2] for page in pages).replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip().startswith("tokswap ")]


@pytest.mark.parametrize("line", _examples())
def test_the_flags_of_every_example_exist(line: str) -> None:
    import shlex

    name, *args = shlex.split(line)[1:]
    command = main.get_command(click.Context(main), name)
    assert command is not None
    command.make_context(name, args)  # raises a UsageError for a flag or an argument that is not there


def test_every_command_has_the_options_that_its_siblings_have() -> None:
    """A program that adds --json or --quiet to every call need not know which command it calls."""
    flags = {}
    for name in _names():
        first, *below = name.split()
        command = main.get_command(click.Context(main), first)
        for sub in below:
            assert isinstance(command, click.Group)
            command = command.commands[sub]
        if command is not None and not isinstance(command, click.Group):
            flags[name] = {flag for one in command.params for flag in one.opts}
    assert {name for name, own in flags.items() if "--json" not in own} == {"completion"}
    # These print what is asked for and open nothing.
    assert {name for name, own in flags.items() if "--quiet" not in own} == {"alias", "methods", "completion"}
    reads = {"--corpus", "--heal", "--distill", "--trim-corpus", "--text"}
    assert {name for name, own in flags.items() if own & reads and "--field" not in own} == set()
    writes = {name for name, own in flags.items() if "--force" in own} - {"hypernet import"}  # which makes no plan
    assert {name for name in writes if "--dry-run" not in flags[name]} == set()
    assert all({"-q", "--quiet", "-v", "--verbose"} <= own for own in flags.values() if "--quiet" in own)


def test_the_version() -> None:
    from importlib.metadata import version

    assert run("--version").stdout == f"tokswap {version('tokswap')}\n"


# One JSON document.


def test_json_of_every_command(models: tuple[Path, Path], tmp_path: Path) -> None:
    source, donor = models
    out = tmp_path / "out"
    pair = ("--model", source, "--tokenizer", donor, "--out", out, "--json")
    plan = one_document(run("transplant", *pair, "--dry-run").stdout)
    assert plan["plan"]["out"] == str(out)
    done = one_document(run("transplant", *pair).stdout)
    assert set(done) == {
        "format",
        "plan",
        "seconds",
        "checks",
        "diagnostics",
        "worst",
        "notes",
        "evidence",
        "groups",
        "groups_before",
        "norms",
        "unusual",
        "versions",
    }
    verdict = one_document(run("verify", out, "--against", source, "--json").stdout)
    assert verdict["ok"]
    assert all(check["ok"] for check in verdict["checks"])
    (tmp_path / "text").write_text(shipped_text("english"), encoding="utf-8")
    judged = one_document(
        run("eval", out, "--text", tmp_path / "text", "--against", source, "--tokens", 1, "--json").stdout
    )
    assert [entry["is_source"] for entry in judged["models"]] == [True, False]
    assert one_document(run("inspect", out, "--json").stdout)["tables"][0]["rows"] == 707
    assert one_document(run("compare", source, donor, "--json").stdout)["sizes"] == [640, 700]
    names = [method["name"] for method in one_document(run("methods", "--json").stdout)]
    assert {"omp", "subword"} <= set(names)
    assert one_document(run("methods", "omp", "--json").stdout)["settings"][0]["name"] == "k"
    assert one_document(run("alias", "--json").stdout)["llama"] == "meta-llama/Llama-3.2-1B"


ERRORS: list[tuple[str, int, tuple[str, ...]]] = [
    ("unknown-model", 1, ("transplant", "--model", "no-such-model", "--tokenizer", "SOURCE")),
    ("unknown-tokenizer", 1, ("transplant", "--model", "SOURCE", "--tokenizer", "no-such-tokenizer")),
    ("missing-donor", 1, ("transplant", "--model", "SOURCE", "--tokenizer", "DONOR/tokenizer.json", "--init", "omp")),
    ("unknown-method", 2, ("transplant", "--model", "SOURCE", "--tokenizer", "DONOR", "--init", "opm")),
    (
        "unknown-setting",
        2,
        ("transplant", "--model", "SOURCE", "--tokenizer", "DONOR", "--init", "omp", "--set", "kk=3"),
    ),
    ("bad-setting", 2, ("transplant", "--model", "SOURCE", "--tokenizer", "DONOR", "--init", "omp", "--set", "k=0")),
    ("unknown-token", 2, ("transplant", "--model", "SOURCE", "--tokenizer", "DONOR", "--map-token", "<x>=<y>")),
    ("bad-vocab-size", 2, ("transplant", "--model", "SOURCE", "--tokenizer", "DONOR", "--vocab-size", "3")),
    ("output-is-source", 1, ("transplant", "--model", "SOURCE", "--tokenizer", "DONOR", "--out", "SOURCE/inside")),
    ("bad-usage", 2, ("transplant", "--model", "SOURCE")),
    ("bad-usage", 2, ("transplant", "--model", "SOURCE", "--tokenizer", "DONOR", "--set", "k")),
    ("bad-usage", 2, ("transplant", "--no-such-flag")),
    ("unknown-model", 1, ("verify", "./nowhere")),
    ("missing-config", 1, ("verify", "EMPTY")),
    ("bad-device", 2, ("verify", "SOURCE", "--device", "no-such-device")),
    ("bad-usage", 2, ("eval", "SOURCE")),
    ("bad-text", 1, ("eval", "SOURCE", "--text", "nowhere.txt")),
    ("unknown-model", 1, ("eval", "nowhere", "--text", "SOURCE/config.json")),
    ("unknown-tokenizer", 1, ("inspect", "nowhere")),
    ("missing-tokenizer", 1, ("inspect", "EMPTY")),
    ("unknown-tokenizer", 1, ("compare", "SOURCE", "nowhere")),
    ("bad-text", 1, ("compare", "SOURCE", "DONOR", "--text", "nowhere.txt")),
    ("unknown-method", 2, ("methods", "subwrod")),
    ("unknown-alias", 2, ("alias", "lama")),
    ("unknown-alias", 2, ("alias", "llama", "--remove")),
    ("bad-alias", 2, ("alias", "a/b", "c")),
    ("bad-alias", 2, ("alias", "mine", "./nowhere")),
    ("bad-usage", 2, ("alias", "--remove")),
]


@pytest.mark.parametrize(
    ("code", "status", "args"), ERRORS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value)
)
def test_errors(
    code: str,
    status: int,
    args: tuple[str, ...],
    models: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    places = {"SOURCE": models[0], "DONOR": models[1], "EMPTY": tmp_path / "empty"}
    given = [re.sub("SOURCE|DONOR|EMPTY", lambda found: str(places[found[0]]), arg) for arg in args]
    before = tools.snapshot(tmp_path)

    plain = run(*given, status=status)
    assert plain.stdout == ""
    if code != "bad-usage":  # click's own words for those
        assert plain.stderr.startswith("error: ")
        assert f"  [{code}]\n" in plain.stderr

    machine = run(*given, "--json", status=status)
    error = one_document(machine.stdout)["error"]
    assert error["code"] == code
    assert error["message"]
    assert set(error) == {"code", "message", "where", "hint"}
    assert tools.snapshot(tmp_path) == before


def test_an_error_says_what_where_and_how_to_fix_it(models: tuple[Path, Path]) -> None:
    tokenizer = models[1] / "tokenizer.json"
    text = run("transplant", "--model", models[0], "--tokenizer", tokenizer, "--init", "omp", status=1).stderr
    assert text == (
        "error: the target tokenizer comes without weights, and the method needs the donor's embeddings  "
        "[missing-donor]\n"
        f"  tokenizer: {tokenizer}\n"
        "\n"
        "hint: name the donor with --donor MODEL, or use a method that needs none: --init auto, tokenadapt, subword\n"
    )


@pytest.mark.parametrize(
    ("args", "suggestion"),
    [
        (("trasplant",), "transplant"),
        (("inspct", "x"), "inspect"),
        (("methods", "subwrod"), "subword"),
        (("transplant", "--model", "S", "--tokenizer", "D", "--init", "opm"), "omp"),
        (("transplant", "--model", "S", "--tokenizer", "D", "--init", "omp", "--set", "toleranse=1"), "tolerance"),
        (("alias", "lama"), "llama"),
        (("transplant", "--model", "mistrl", "--tokenizer", "D"), "mistral"),
        (("inspect", "gema"), "gemma"),
        (("ensemble", "chekc", "x"), "check"),
        (("transplant", "--model", "S", "--tokenizer", "D", "--init", "omp", "--set", "K=1"), "k"),
    ],
)
def test_typos_get_a_suggestion(args: tuple[str, ...], suggestion: str) -> None:
    result = CliRunner().invoke(main, list(args))
    assert result.exit_code in (1, 2)
    assert f"Did you mean `{suggestion}`?" in result.stderr


def test_a_model_is_named_with_and_without_a_flag() -> None:
    for name in ("heal", "eval", "generate", "verify", "inspect"):
        told = CliRunner().invoke(main, [name, "--model", "x"]).stderr
        assert f"no option --model: write `main {name} " in told, told
    assert "No such option" in CliRunner().invoke(main, ["methods", "--modle", "x"]).stderr


def test_hints_lead_somewhere(models: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "file.txt").write_text("x")
    assert "PEFT adapter" in run("inspect", tmp_path / "adapter", status=1).stderr
    assert "that tokswap has written" in run("report", models[0], status=1).stderr
    for command in (("ensemble", "check"), ("hypernet", "info")):
        assert "there is no such folder" in run(*command, tmp_path / "nowhere", status=1).stderr
    pair = ("transplant", "--model", models[0], "--tokenizer", models[1], "--init", "mean")
    told = run(*pair, "--out", tmp_path / "file.txt", status=1).stderr
    assert "[output-exists]" in told
    assert "--force" not in told  # which replaces folders of models only


# Transplant and verify.


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(
        "transplant",
        "--model",
        models[0],
        "--tokenizer",
        models[1],
        "--out",
        "out",
        "--dry-run",
        "--init",
        "omp",
        "--set",
        "k=9",
    )
    assert list(tmp_path.iterdir()) == []
    assert result.stderr == ""
    text = " ".join(result.stdout.split())
    for part in (
        "-> out",
        "707 rows",
        "7 1.0 % padding",
        "omp (k=9, ",
        "byte-level BPE; the model has SentencePiece BPE",
        "copied, same bytes",
        "initialised by omp",
        "input: 640 x 32 -> 707 x 32 F32 model.embed_tokens.weight",
    ):
        assert part in text


def test_talk_goes_to_stderr_and_the_result_to_stdout(models: tuple[Path, Path], tmp_path: Path) -> None:
    pair = ("transplant", "--model", models[0], "--tokenizer", models[1])
    out = tmp_path / "not quiet"
    loud = run(*pair, "--out", out)
    assert "707 rows" in loud.stderr
    assert loud.stdout.startswith(f"wrote {out}")
    assert loud.stdout.endswith(f"next: tokswap verify '{out}' --against {models[0]}\n")
    quiet = run(*pair, "--out", tmp_path / "quiet", "-q")
    assert quiet.stdout == f"{tmp_path / 'quiet'}\n"
    assert quiet.stderr == ""
    assert tools.snapshot(out)["model.safetensors"] == tools.snapshot(tmp_path / "quiet")["model.safetensors"]


def test_the_flags_reach_the_plan(models: tuple[Path, Path], tmp_path: Path) -> None:
    flags = (
        "--init",
        "gaussian",
        "--set",
        "scale=0.5",
        "--pad-to-multiple",
        "64",
        "--vocab-size",
        "tight",
        "--tie",
        "--map-token",
        "<|reserved_special_token_0|>=<unused1>",
        "--out",
        tmp_path / "out",
        "--json",
        "--dry-run",
        "--bos",
        "keep",
        "--seed",
        "4",
        "--link",
    )
    plan = one_document(run("transplant", "--model", models[0], "--tokenizer", models[1], *flags).stdout)["plan"]
    assert (plan["method"], plan["settings"], plan["tied"]) == ("gaussian", {"scale": 0.5}, True)
    assert sum(plan["coverage"].values()) == 704
    assert plan["coverage"]["map"] == 1
    plan = one_document(
        run(
            "transplant",
            "--model",
            models[0],
            "--tokenizer",
            models[1] / "tokenizer.json",
            "--donor",
            models[1],
            "--dry-run",
            "--json",
        ).stdout
    )["plan"]
    assert plan["donor"] == str(models[1])


def test_a_note_is_said_once(model_of: Make, tmp_path: Path) -> None:
    source = model_of("llama-tied", family="sentencepiece", vocab_size=640, adds_bos=True)
    bare = tmp_path / "tokenizer.json"
    bare.write_bytes((model_of("gpt-neox", family="byte-level", vocab_size=700) / "tokenizer.json").read_bytes())
    lines = run("transplant", "--model", source, "--tokenizer", bare, "--init", "mean", "--dry-run").stdout
    notes = [line for line in lines.splitlines() if line.startswith("  note: ")]
    assert any("`bos_token_id` is now unset" in note for note in notes)
    assert len(notes) == len(set(notes))


def test_force(models: tuple[Path, Path], tmp_path: Path) -> None:
    args = ("transplant", "--model", models[0], "--tokenizer", models[1], "--out", tmp_path / "out", "--init", "mean")
    run(*args)
    assert "[output-exists]" in run(*args, status=1).stderr
    run(*args, "--force")


def test_verify_exits_with_1_where_a_check_fails(models: tuple[Path, Path], tmp_path: Path) -> None:
    broken = copy_model(models[0], tmp_path / "broken")
    edit_json(broken / "generation_config.json", eos_token_id=[1, 9999])
    good = run("verify", models[0])
    assert "FAIL" not in good.stdout
    assert re.search(r"^(\d+) of \1 checks hold$", good.stdout, re.M)
    bad = run("verify", broken, status=1)
    assert re.search(r"^  FAIL +token ids in range +generation_config\.eos_token_id$", bad.stdout, re.M)
    assert len(run("verify", broken, "-q", status=1).stdout.splitlines()) == 2
    verdict = one_document(run("verify", broken, "--json", status=1).stdout)
    assert not verdict["ok"]
    assert [check["name"] for check in verdict["checks"] if not check["ok"]] == ["token ids in range"]


# eval.


def test_eval_for_people(models: tuple[Path, Path], tmp_path: Path) -> None:
    source, donor = models
    out, english, code = tmp_path / "out", tmp_path / "english.txt", tmp_path / "code.py"
    run("transplant", "--model", source, "--tokenizer", donor, "--init", "subword", "--out", out)
    english.write_text(shipped_text("english"), encoding="utf-8")
    code.write_text(shipped_text("code"), encoding="utf-8")
    flags = ("--against", source, "--tokens", "3", "--prompt", "The old")
    done = run("eval", out, "--text", english, "--text", code, *flags)
    text = " ".join(done.stdout.split())
    for part in (
        "english.txt, 2,7",
        "code.py, 2,4",
        "all texts, 5,",
        f"{source} (source)",
        "95 % intervals, from",
        "missing tokens",
        "shared, tokenized as before",
        "largest excess",
        "'The old' goes on:",
    ):
        assert part in text
    assert re.search(rf"{out} \d+\.\d{{3}} \[\d+\.\d{{3}}, \d+\.\d{{3}}\] [+-]\d+\.\d{{3}} \[", text)
    assert done.stderr == ""
    text = run("eval", out, "--text", english, "--tokens", "0").stdout
    for part in ("the token after one", "shared tokens", "largest loss"):
        assert part in text
    assert "source" not in text
    assert "goes on" not in text
    assert "give --against" in run("eval", source, "--text", english, "--tokens", "0").stdout
    assert "goes on" not in run("eval", source, "--text", english, "-q").stdout


# The others.


def test_inspect_and_compare_for_people(models: tuple[Path, Path], tmp_path: Path) -> None:
    text = " ".join(run("inspect", models[1]).stdout.split())
    for part in (
        "GPT2LMHeadModel",
        "one matrix (tied)",
        "707 rows, 7 of them padding, width 32, F32",
        "byte-level BPE",
        "bos <|im_start|> (1)",
        "chat template no",
    ):
        assert part in text
    assert "model" not in run("inspect", models[1] / "tokenizer.json").stdout.split()
    (tmp_path / "note.txt").write_text("one two three", encoding="utf-8")
    text = run("compare", *models, "--text", tmp_path / "note.txt").stdout
    assert "note.txt" in text
    assert "English" not in text
    assert re.search(r"<\|im_start\|> +<bos>", text)
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    assert "[empty-text]" in run("compare", *models, "--text", tmp_path / "empty.txt", status=1).stderr


def test_methods() -> None:
    text = run("methods").stdout
    assert re.search(r"^  omp +the donor's embeddings +sparse code", text, re.M)
    assert re.search(r"^  zero +nothing +zero rows", text, re.M)
    text = run("methods", "omp").stdout
    assert re.search(r"^  k +64 +most atoms per token$", text, re.M)
    assert "needs: the donor's embeddings" in text
    assert "settings" not in run("methods", "mean").stdout


def test_aliases(models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.search(r"^  llama +meta-llama/Llama-3.2-1B$", run("alias").stdout, re.M)
    monkeypatch.chdir(models[0].parent)
    assert re.search(rf"^  mine +{models[0]} +yours$", run("alias", "mine", models[0].name).stdout, re.M)
    run("alias", "llama", "Someone/Else")
    monkeypatch.chdir(tmp_path)
    assert one_document(run("alias", "mine", "--json").stdout) == {"mine": str(models[0])}
    assert one_document(run("alias", "llama", "--json").stdout) == {"llama": "Someone/Else"}
    plan = one_document(run("transplant", "--model", "mine", "--tokenizer", models[1], "--dry-run", "--json").stdout)[
        "plan"
    ]
    assert plan["out"] == "mine-made"
    run("alias", "llama", "--remove")
    run("alias", "mine", "--remove")
    assert "yours" not in run("alias").stdout
    assert "give a MODEL or --remove" in run("alias", "mine", "x", "--remove", status=2).stderr


# Real processes.


def test_offline_the_builtin_aliases_end_in_an_error(tmp_path: Path) -> None:
    done = process("transplant", "--model", "llama", "--tokenizer", "mistral", HF_HOME=str(tmp_path))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: cannot reach the hub, and the model `llama` is not in its cache  [offline]\n")
    assert "meta-llama/Llama-3.2-1B" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_real_run_is_silent_but_for_its_words(models: tuple[Path, Path], tmp_path: Path) -> None:
    done = process("transplant", "--model", models[0], "--tokenizer", models[1], "--out", tmp_path / "out", "--json")
    assert done.returncode == 0
    assert one_document(done.stdout)["plan"]["out"] == str(tmp_path / "out")
    assert done.stderr.startswith("transplant: ")
    assert "it/s" not in done.stderr
    verified = process("verify", tmp_path / "out", "--against", models[0])
    assert verified.returncode == 0
    assert verified.stderr == ""


def test_json_errors_of_a_real_process() -> None:
    done = process("methods", "opm", "--json")
    assert done.returncode == 2
    assert one_document(done.stdout)["error"]["code"] == "unknown-method"
    assert done.stderr.startswith("error: there is no method `opm`. Did you mean `omp`?")


def test_debug_shows_the_traceback() -> None:
    quiet, loud = process("methods", "opm"), process("methods", "opm", TOKSWAP_DEBUG="1")
    assert "Traceback" not in quiet.stderr
    assert "Traceback (most recent call last)" in loud.stderr
    assert "UsageError" in loud.stderr
    assert loud.returncode != 0


def test_a_bug_keeps_its_traceback(models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(path: Path) -> None:
        raise RuntimeError("a bug")

    importlib.import_module("tokswap.checkpoint.inspect")
    monkeypatch.setattr(sys.modules["tokswap.checkpoint.inspect"], "inspect_checkpoint", bug)
    result = CliRunner().invoke(main, ["inspect", str(models[0])])
    assert isinstance(result.exception, RuntimeError)


def test_an_interrupt_is_answered_and_leaves_nothing(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokswap.init.methods.statistics import Mean

    def interrupt(self: object, problem: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Mean, "__call__", interrupt)
    result = run(
        "transplant",
        "--model",
        models[0],
        "--tokenizer",
        models[1],
        "--out",
        tmp_path / "out",
        "--init",
        "mean",
        "-q",
        status=130,
    )
    assert result.stderr == "\ninterrupted: nothing half-written is left\n"
    assert list(tmp_path.iterdir()) == []


# The library's face.


def test_every_public_name_resolves() -> None:
    assert tokswap.__all__ == sorted(tokswap.__all__)
    for name in tokswap.__all__:
        assert getattr(tokswap, name).__module__.startswith("tokswap.")
        assert getattr(tokswap, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'transplnt'"):
        tokswap.transplnt  # noqa: B018


def test_no_public_name_is_a_module() -> None:
    for module in ("transplant.plan", "checkpoint.inspect", "tokenizer.compare", "evaluation.verify"):
        importlib.import_module(f"tokswap.{module}")  # which leaves its name in the package
    assert [name for name in tokswap.__all__ if isinstance(getattr(tokswap, name), ModuleType)] == []
    assert callable(tokswap.hypernet.load_hypernet)
    assert sys.modules["tokswap.transplant.plan"].plan_transplant is tokswap.plan_transplant
