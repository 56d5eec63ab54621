"""Options are declared once: types, values, flags, signatures and tokswap.json follow."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import tokswap
from tokswap.cli._flags import option_flags, read_options
from tokswap.draft.options import DraftOptions
from tokswap.ensemble.options import EnsembleOptions
from tokswap.errors import UsageError
from tokswap.generation.options import GenerateOptions
from tokswap.options.declare import Options, declared, flag_of, option, options_of
from tokswap.options.keywords import one_and_keywords, two_and_keywords
from tokswap.transplant.options import TransplantOptions
from tokswap.trim.options import TrimOptions

ALL = (TransplantOptions, TrimOptions, DraftOptions, EnsembleOptions, GenerateOptions)


@dataclass(frozen=True, kw_only=True)
class Base(Options):
    seed: int = option(0, "A seed.", least=0, code="bad-seed")


@dataclass(frozen=True, kw_only=True)
class Few(Base):
    words: Sequence[str] = option((), "Words.", flag="--word")
    mode: str = option("fast", "A mode.", choices=("fast", "exact"), code="bad-mode")
    size: int = option(1 << 20, "A size.", kind="size", metavar="SIZE")
    codes: Sequence[str] = option((), "Codes.", kind="codes")
    pairs: dict[str, object] = option({}, "Pairs.", flag="--set", kind="pairs")
    link: bool = option(False, "Link.")
    tie: bool | None = option(None, "Tie.", flag="--tie/--untie", kind="switch")
    hidden: bool = option(False, "Python only.", flag="", recorded=False)


def test_values_are_checked_when_they_are_given() -> None:
    with pytest.raises(UsageError) as wrong:
        Few(seed=-1)
    assert (wrong.value.code, wrong.value.message) == ("bad-seed", "--seed must be at least 0, not -1")
    with pytest.raises(UsageError) as wrong:
        Few(mode="exakt")
    assert wrong.value.code == "bad-mode"
    assert "Did you mean `exact`?" in wrong.value.message
    with pytest.raises(UsageError, match="takes a list"):
        Few(words="one")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": "1"}, "--seed takes a whole number, not '1'"),
        ({"seed": 1.5}, "--seed takes a whole number, not 1.5"),
        ({"size": "1GB"}, "--size takes a number of bytes, not '1GB'"),
        ({"share": "half"}, "--share takes a number, not 'half'"),
        ({"most": 1 << 25}, "--most must be at least 1 and at most 16,777,216, not 33554432"),
    ],
)
def test_numbers_are_numbers(values: dict[str, object], message: str) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Numbers(Few):
        share: float | None = option(None, "A share.")
        most: int | None = option(None, "A bound.", least=1, most=1 << 24)

    with pytest.raises(UsageError) as wrong:
        Numbers(**values)  # type: ignore[arg-type]
    assert wrong.value.message == message
    assert Numbers(seed=np.int64(3), share=1, most=None).share == 1  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"link": "no"}, "--link takes True or False, not 'no'"),
        ({"tie": "untie"}, "--tie/--untie takes True or False, not 'untie'"),
        ({"link": None}, "--link takes True or False, not None"),
        ({"name": 5}, "--name takes text, not 5"),
        ({"name": None}, "--name takes text, not None"),
        ({"either": None}, "--either takes text or a whole number, not None"),
        ({"pairs": "k=3"}, "--set takes a mapping, not 'k=3'"),
        ({"words": {"a": "b"}}, "`words` takes a list of texts, not {'a': 'b'}"),
        ({"words": None}, "`words` takes a list of texts, not None"),
        ({"mode": 5}, "--mode must be one of fast, exact, not 5"),
    ],
)
def test_switches_words_and_pairs_are_of_their_type(values: dict[str, object], message: str) -> None:
    """A text such as "no" would count as yes, for `trust_remote_code` too."""

    @dataclass(frozen=True, kw_only=True)
    class More(Few):
        name: str = option("auto", "A name.")
        either: str | int = option("match", "A name or number.")
        pairs: Mapping[str, object] = option({}, "Pairs.", flag="--set", kind="pairs")

    with pytest.raises(UsageError) as wrong:
        More(**values)  # type: ignore[arg-type]
    assert wrong.value.message == message
    assert More(tie=None, name=torch.device("cpu")).tie is None  # type: ignore[arg-type]


def test_lists_become_tuples_so_that_options_can_be_compared() -> None:
    assert Few(words=["a", "b"]) == Few(words=("a", "b"))
    assert Few(words=["a"]).words == ("a",)


def test_what_is_recorded() -> None:
    recorded = Few(words=["a"], pairs={"k": 3}).recorded()
    assert recorded == {
        "words": ["a"],
        "mode": "fast",
        "size": 1 << 20,
        "codes": [],
        "pairs": {"k": 3},
        "link": False,
        "tie": None,
        "seed": 0,
    }


@one_and_keywords(Few)
def run(name: str, options: Few) -> tuple[str, Few]:
    """Do it."""
    return name, options


def test_a_function_takes_options_as_keywords() -> None:
    assert run("x", words=["a"], seed=3) == ("x", Few(words=["a"], seed=3))
    assert run(name="x", seed=3) == ("x", Few(seed=3))
    with pytest.raises(TypeError, match="sed"):
        run("x", sed=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="options"):
        run("x", options=Few())  # type: ignore[call-arg]


def test_signature_and_docstring_show_every_option() -> None:
    parameters = inspect.signature(run).parameters
    assert next(iter(parameters)) == "name"
    assert {item.name for item in fields(Few)} == set(parameters) - {"name"}
    assert parameters["mode"].default == "fast"
    assert all(entry.kind is inspect.Parameter.KEYWORD_ONLY for name, entry in parameters.items() if name != "name")
    assert "seed: A seed." in str(run.__doc__)


@click.command()
@option_flags(Few)
def command(**values: object) -> None:
    click.echo(repr(read_options(Few, values)))


def parsed(*arguments: str) -> str:
    done = CliRunner().invoke(command, arguments)
    return done.output


def test_docstrings_in_python_speak_of_arguments() -> None:
    """A list is not "repeated", and a flag is not an argument: `help()` says what Python takes."""
    for name in tokswap.__all__:
        text = re.sub("`tokswap .*?`", "", inspect.getdoc(getattr(tokswap, name)) or "")
        listed = text.partition("Keyword Args:")[2]
        assert "epeat for more" not in listed, name
        assert not re.search("--[a-z]", listed), name


def test_the_version_is_where_programs_look_for_it() -> None:
    assert tokswap.__version__ == metadata.version("tokswap")


def test_flags_follow() -> None:
    assert parsed() == f"{Few()!r}\n"
    given = parsed(
        "--word",
        "a",
        "--word",
        "b",
        "--mode",
        "exact",
        "--size",
        "2MB",
        "--codes",
        "de, en",
        "--set",
        "k=3",
        "--link",
        "--untie",
        "--seed",
        "4",
    )
    wanted = Few(
        words=("a", "b"),
        mode="exact",
        size=2_000_000,
        codes=("de", "en"),
        pairs={"k": "3"},
        link=True,
        tie=False,
        seed=4,
    )
    assert given == f"{wanted!r}\n"
    for wrong in (["--mode", "x"], ["--size", "big"], ["--set", "k"], ["--hidden"]):
        assert CliRunner().invoke(command, wrong).exit_code == 2


@pytest.mark.parametrize("options", ALL, ids=lambda options: options.__name__)
def test_every_option_is_declared_with_help(options: type[Options]) -> None:
    for item in options_of(options):
        assert declared(item).help.endswith((".", "]", ")")), item.name
    flags = [flag for item in options_of(options) if (flag := flag_of(item))]
    assert len(flags) == len(set(flags))


@pytest.mark.parametrize("options", ALL, ids=lambda options: options.__name__)
def test_an_option_is_declared_in_one_place(options: type[Options]) -> None:
    groups = [group for group in options.__mro__ if issubclass(group, Options) and group is not Options]
    names = [name for group in groups for name in vars(group).get("__annotations__", {})]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (tokswap.transplant_tokenizer, TransplantOptions),
        (tokswap.plan_transplant, TransplantOptions),
        (tokswap.trim_vocabulary, TrimOptions),
        (tokswap.make_draft, DraftOptions),
        (tokswap.prepare_ensemble, EnsembleOptions),
        (tokswap.generate_text, GenerateOptions),
    ],
    ids=[
        "transplant_tokenizer",
        "plan_transplant",
        "trim_vocabulary",
        "make_draft",
        "prepare_ensemble",
        "generate_text",
    ],
)
def test_public_functions_take_their_options(function: object, options: type[Options]) -> None:
    parameters = inspect.signature(function).parameters  # type: ignore[arg-type]
    keywords = {name for name, entry in parameters.items() if entry.kind is inspect.Parameter.KEYWORD_ONLY}
    assert keywords == {item.name for item in fields(options)}


def test_options_load_no_heavy_library() -> None:
    code = (
        "import sys, tokswap.transplant.options, tokswap.trim.options, tokswap.draft.options, tokswap.ensemble.options\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"numpy", "torch", "transformers", "click"}.isdisjoint(done.stdout.split())


def test_one_name_is_a_list_of_one() -> None:
    """A text that is given as a str was read as one file, or folder, for each of its characters."""

    @dataclass(frozen=True, kw_only=True)
    class Own(Options):
        more: int = option(1, "More.")

    @two_and_keywords(Own)
    def read(model: str, texts: Sequence[str | Path], options: Own) -> tuple[str, Sequence[str | Path], int]:
        return model, texts, options.more

    assert read("model", "./notes.txt") == ("model", ["./notes.txt"], 1)
    assert read("model", texts=Path("notes.txt"), more=2) == ("model", [Path("notes.txt")], 2)
    assert read("model", ["a", "b"]) == ("model", ["a", "b"], 1)
    with pytest.raises(TypeError):
        read("model")  # type: ignore[call-arg]
