"""Write the pages that come from the code, or with --check say which are out of date.

docs/cli.md comes from the help texts, docs/methods.md from the methods' docstrings and settings, the list of methods in
README.md from their summaries, and docs/compatibility.md from what `make compatibility` and `.ci/environment` have kept.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

from tokswap.cli import COMMANDS, main
from tokswap.init.registry import METHODS, method_class, needs_of

DOCS = Path(__file__).parent
README = DOCS.parent / "README.md"
_LIST = re.compile(r"(?<=<!-- methods: made by `make docs` -->\n).*?(?=<!-- end of methods -->)", re.DOTALL)


def cli() -> str:
    """Return the command line reference."""
    parts = ["# Command line reference\n\nMade from the help texts by `make docs`.\n"]
    for name in ("", *_all_commands()):
        result = CliRunner().invoke(main, [*name.split(), "--help"], prog_name="tokswap", terminal_width=100)
        if result.exit_code:
            raise click.ClickException(f"tokswap {name} --help failed: {result.output}")
        parts.append(f"## tokswap {name}".rstrip() + f"\n\n```\n{result.output.rstrip()}\n```\n")
    return "\n".join(parts)


def _all_commands() -> Iterator[str]:
    """Yield the commands, each followed by its own subcommands."""
    for name in COMMANDS:
        yield name
        command = main.get_command(click.Context(main), name)
        if isinstance(command, click.Group):
            yield from (f"{name} {below}" for below in command.commands)


def methods() -> str:
    """Return the page of methods."""
    parts = [
        "# Methods\n\nA method makes the rows of the tokens that the source model lacks: `--init NAME`, with its "
        "settings as\n`--set key=value`. Rows of shared tokens are copied and no method sees them. Made from the "
        "methods by `make docs`.\n",
        method_list(),
    ]
    for name in METHODS:
        cls = method_class(name)
        fields = dataclasses.fields(cls)
        text = f"## {name}\n\n{' '.join((cls.__doc__ or '').split())}\n\n"
        text += f"- needs: {needs_of(cls)}\n- comes from: {_linked(cls.source)}\n"
        if fields:
            text += "\n" + _table(
                ("setting", "default", "range", "what it does"),
                [(f"`{f.name}`", f"`{f.default}`", _range(f), f.metadata["help"]) for f in fields],
            )
        parts.append(text)
    return "\n".join(parts)


def method_list() -> str:
    """Return the table of all methods."""
    classes = {name: method_class(name) for name in METHODS}
    rows = [(f"`{name}`", cls.summary, needs_of(cls), _linked(cls.source)) for name, cls in classes.items()]
    return _table(("method", "a new row is", "needs", "comes from"), rows)


def readme() -> str:
    """Return README.md with its list of methods."""
    text, count = _LIST.subn(lambda _: method_list(), README.read_text("utf-8"))
    if count != 1:
        raise click.ClickException("README.md has lost the marks around its list of methods")
    return text


_RESULTS = ("works", "refuses", "fails", "not made")


def compatibility() -> str:
    """Return the page of architectures."""
    kept = json.loads((DOCS.parent / "benchmarks" / "results" / "compatibility.json").read_text("utf-8"))
    found = [(one, _worst(one["transplant"], one["trim"])) for one in kept["outcomes"]]
    tasks = list(dict.fromkeys(one["task"] for one, _ in found))

    def count(task: str | None) -> tuple[str, ...]:
        results = [result.partition(":")[0].split(" with")[0] for one, result in found if task in (None, one["task"])]
        return task or "all", str(len(results)), *(str(results.count(word)) for word in _RESULTS)

    def names(task: str) -> str:
        works = [
            (one["model_type"], result) for one, result in found if one["task"] == task and result.startswith("works")
        ]
        return ", ".join(f"`{name}`" + ("\\*" if result != "works" else "") for name, result in works)

    def others(word: str) -> str:
        rows = [
            (one["task"], f"`{one['model_type']}`", result.removeprefix(f"{word}: ").replace("<", "&lt;"))
            for one, result in found
            if result.startswith(word)
        ]
        return _table(("task", "model type", "reason"), rows) if rows else "None.\n"

    versions = kept["machine"]["versions"]
    return "\n".join(
        [
            "# Compatibility\n",
            "Every architecture that transformers lists for causal, masked and sequence-to-sequence language models, as a tiny\n"
            "model with random weights. `make compatibility` makes this page; these outcomes are of "
            f"{kept['date']}, with transformers {versions['transformers']}, tokenizers {versions['tokenizers']}\n"
            f"and torch {versions['torch']}, on CPU. Quality is another question: see the README's *Limits*.\n",
            "An architecture *works* where\n",
            "- put onto its own tokens under other numbers, its hidden states are equal bit for bit, and its logits only change places;\n"
            "- put onto another tokenizer, it passes every check of `tokswap verify` that the source passes;\n"
            "- trimmed to German, its hidden states are equal bit for bit, the logits of kept tokens are equal, and `verify` passes;\n"
            "- each result loads with the class of the source and no other missing, unexpected or mismatched tensors.\n",
            _table(("task", "listed", "works", "refused", "fails", "not made here"), [*map(count, tasks), count(None)]),
            "## What works\n",
            *(f"**{task}**: {names(task)}\n" for task in tasks),
            "\\* These count positions from the id of their pad token: a transplant wants a tokenizer whose pad has the same id, and is\n"
            "refused otherwise (`pad-defines-positions`). A trim needs nothing.\n",
            "## What is refused\n",
            "Before anything is written, with the reason.\n",
            others("refuses"),
            "## What fails\n",
            others("fails"),
            "## What could not be made here\n",
            "So small, from a config and without further packages, by the rules of this test. It says nothing about real models.\n",
            others("not made"),
            "## Tests in other environments\n",
            environments(),
        ]
    )


def environments() -> str:
    """Return the table of what came of the tests with other releases."""
    runs = json.loads((DOCS.parent / "benchmarks" / "results" / "environments.json").read_text("utf-8"))["runs"]
    libraries = ("transformers", "tokenizers", "torch", "numpy")
    rows = [
        (
            f"`.ci/{run['name']}`",
            run["python"],
            *(run["versions"][name] for name in libraries),
            *(str(run[word]) for word in ("files", "passed", "skipped", "failed", "again")),
            run["date"],
        )
        for run in runs
    ]
    return (
        "What these scripts found when they were last run, without the tests that need the demo models. `lowest` installs the oldest\n"
        "releases that `pyproject.toml` allows, `newest` what pip chose on that day, `pinned` those of `constraints.txt`.\n"
        "`.ci/run` has the latter too, on Python 3.11. *Run again* counts tests that failed at first, and were run once more after a fix. A run of fewer\n"
        "test files than the others was of those that depend on releases most. The scripts write this table; nothing is claimed for what is not in it.\n\n"
    ) + _table(("run by", "Python", *libraries, "test files", "passed", "skipped", "failed", "run again", "date"), rows)


def _worst(*results: str) -> str:
    """Return the result that comes last in the order of `_RESULTS`."""
    return max(results, key=lambda result: next(n for n, word in enumerate(_RESULTS) if result.startswith(word)))


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _range(item: dataclasses.Field[Any]) -> str:
    least, most = item.metadata["least"], item.metadata["most"]
    if isinstance(item.default, bool):
        return "true or false"
    if item.metadata["choices"]:
        return ", ".join(item.metadata["choices"])
    if least is not None and most is not None:
        return f"{least} to {most}"
    return f"at least {least}" if least is not None else f"at most {most}" if most is not None else "any"


def _linked(source: str) -> str:
    source = re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", source)
    return re.sub(r"^https://(\S+)$", r"[\1](https://\1)", source)


PAGES: Mapping[Path, Callable[[], str]] = {
    DOCS / "cli.md": cli,
    DOCS / "methods.md": methods,
    DOCS / "compatibility.md": compatibility,
    README: readme,
}


def stale() -> list[str]:
    """Return the names of the pages that are not what the code says."""
    return [path.name for path, render in PAGES.items() if not path.is_file() or path.read_text("utf-8") != render()]


if __name__ == "__main__":
    if "--check" in sys.argv:
        if found := stale():
            sys.exit(f"out of date: {', '.join(found)}; run `make docs`")
    else:
        for path, render in PAGES.items():
            path.write_text(render(), "utf-8")
