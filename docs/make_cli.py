"""Write the pages that come from code, or with --check say which are out of date.

- docs/cli.md comes from the help texts.
- docs/methods.md comes from the methods' docstrings and settings.
- docs/compatibility.md comes from the results of `make compatibility` and `.ci/environment`.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

from tokswap.cli import COMMANDS, main
from tokswap.init.registry import METHODS, method_class, needs_of
from tokswap.options.declare import declared

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"


def cli() -> str:
    """Return the command line reference."""
    parts = ["# Command line reference\n\n`make docs` writes this page from the help texts.\n"]
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


_METHODS_HEAD = """\
# Methods

A method computes the rows of missing tokens. Choose one with `--init NAME` and set its hyperparameters with
`--set key=value`. Rows of shared tokens are copied. [Quality](quality.md) compares the methods. `make docs` writes this
page from the code.
"""


def methods() -> str:
    """Return the page of methods: a table of all, then a section for each."""
    classes = {name: method_class(name) for name in METHODS}
    rows = [(f"`{name}`", cls.summary, needs_of(cls), _linked(cls.reference)) for name, cls in classes.items()]
    table = _table(("method", "a new row is", "needs", "reference"), rows)
    return "\n".join([_METHODS_HEAD, table, *(_method(name, cls) for name, cls in classes.items())])


def _method(name: str, cls: type[Any]) -> str:
    """Return the section of a method."""
    text = f"## {name}\n\n{_description(cls)}\n\n- needs: {needs_of(cls)}\n- reference: {_linked(cls.reference)}\n"
    settings = [
        (f"`{item.name}`", _shown(item.default), _range(item), declared(item).help) for item in dataclasses.fields(cls)
    ]
    return text + ("\n" + _table(("setting", "default", "range", "meaning"), settings) if settings else "")


def _description(cls: type[Any]) -> str:
    """Return a class's docstring without its sections (`Attributes:`, `Reference:`)."""
    text = re.split(r"^(?:Attributes|References?):", inspect.getdoc(cls) or "", maxsplit=1, flags=re.MULTILINE)[0]
    paragraphs = (" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))
    return "\n\n".join(textwrap.fill(paragraph, 120, break_on_hyphens=False) for paragraph in paragraphs)


def _shown(default: Any) -> str:
    """Return the default value of a setting; an empty text means that there is none."""
    return "none" if default == "" else f"`{default}`"


def _range(item: dataclasses.Field[Any]) -> str:
    """Return the allowed values of a setting."""
    known = declared(item)
    if isinstance(item.default, bool):
        return "true or false"
    if known.choices:
        return ", ".join(known.choices)
    if known.least is not None and known.most is not None:
        return f"{known.least} to {known.most}"
    if known.least is not None:
        return f"at least {known.least}"
    return f"at most {known.most}" if known.most is not None else "any"


def _linked(reference: str) -> str:
    """Return a reference with links to its papers and pages."""
    reference = re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", reference)
    return re.sub(r"^https://(\S+)$", r"[\1](https://\1)", reference)


_OUTCOMES = ("works", "refuses", "fails", "not made")
_COMPATIBILITY_HEAD = """\
# Compatibility

Every architecture that transformers lists for causal, masked and sequence-to-sequence language models, tested as a tiny
model with random weights. `make compatibility` writes this page. Outcomes of {date} with transformers {transformers},
tokenizers {tokenizers} and torch {torch}, on CPU. This is a test of correctness; [limits](measured.md#limits) says what
is known about quality.

An architecture *works* if

- after a transplant onto its own tokens under other ids, its hidden states are equal bit for bit, and its logits are
  only permuted;
- after a transplant onto another tokenizer, it passes every check of `tokswap verify` that the source passes;
- after a trim to German, its hidden states are equal bit for bit, the logits of kept tokens are equal, and `verify`
  passes;
- each result loads with the class of the source, with no other missing, unexpected or mismatched tensors.
"""
_HEAL_HEAD = """\
Every causal architecture, after two training steps of a tiny model with random weights. Outcomes of {date} with
transformers {transformers} and torch {torch}, on CPU. It *works* if

- embeddings and layers get gradients, and as many numbers learn as the plan says;
- the written model loads as the source does and predicts what the trained one does; with an adapter its PEFT folder,
  loaded by PEFT itself, does too;
- after `tokswap extend` hidden states and the logits of old tokens are equal bit for bit and within 1e-4, new tokens
  come out of the tokenizer, and `verify` passes.
"""
_LEFT = """\
A LoRA adapter fits plain linear layers. The plan names what it leaves as it is, mostly the experts of each layer; `--train
full` trains all. Here is the share of the body, where it is a tenth or more. It is that of tiny models: in real ones
experts are more of the body.
"""
_STARRED = """\
\\* These count positions from the id of their pad token. A transplant needs a tokenizer whose pad token has the same
id, and is refused otherwise (`pad-defines-positions`). A trim has no such condition.
"""
_NOT_MADE = """\
The rules of this test cannot make these models so small, from a config and without further packages. This says nothing
about real models.
"""


def compatibility() -> str:
    """Return the page of architectures."""
    kept = json.loads((RESULTS / "compatibility.json").read_text("utf-8"))
    found = [(one, _worst(one["transplant"], one["trim"])) for one in kept["outcomes"]]
    tasks = list(dict.fromkeys(one["task"] for one, _ in found))
    counts = [_count(found, task) for task in (*tasks, None)]
    sections = {
        "What works": "\n".join([*(f"**{task}**: {_working(found, task)}\n" for task in tasks), _STARRED]),
        "What is refused": "Before anything is written, with the reason.\n\n" + _with_reason(found, "refuses"),
        "What fails": _with_reason(found, "fails"),
        "What could not be made here": f"{_NOT_MADE}\n{_with_reason(found, 'not made')}",
        "Healing and new tokens": healing(),
        "Tests in other environments": environments(),
    }
    return "\n".join(
        [
            _COMPATIBILITY_HEAD.format(date=kept["date"], **kept["machine"]["versions"]),
            _table(("task", "listed", "works", "refused", "fails", "not made here"), counts),
            *(f"## {title}\n\n{text}" for title, text in sections.items()),
        ]
    )


_HEAL_COLUMNS = {"adapter": "`heal`", "full": "`heal --train full`", "extend": "`extend`"}
"""What was tried of healing and extension -> its name."""


def healing() -> str:
    """Return the outcomes of healing and extension."""
    kept = json.loads((RESULTS / "compatibility-heal.json").read_text("utf-8"))
    found = kept["outcomes"]
    rows = [
        (shown, str(len(found)), *(str(sum(one[key].startswith(word) for one in found)) for word in _OUTCOMES))
        for key, shown in _HEAL_COLUMNS.items()
    ]
    others = [
        (f"`{one['model_type']}`", shown, one[key].replace("<", "&lt;"))
        for one in found
        for key, shown in _HEAL_COLUMNS.items()
        if not one[key].startswith(("works", "not made")) and not (key == "full" and one[key] == one["adapter"])
    ]
    left = sorted(((one["left"], one["model_type"]) for one in found if (one["left"] or 0) >= 10), reverse=True)
    return "\n".join(
        [
            _HEAL_HEAD.format(date=kept["date"], **kept["machine"]["versions"]),
            _table(("command", "listed", "works", "refused", "fails", "not made here"), rows),
            "What does not work, with the reason. `--train full` is refused for the same reasons as an adapter. `youtu` fails "
            "because transformers sets the pad token's row to zero whenever it loads such a model.\n",
            _table(("model type", "command", "reason"), others),
            f"{_LEFT}\n{', '.join(f'`{name}` {share} %' for share, name in left)}\n",
        ]
    )


def _worst(*outcomes: str) -> str:
    """Return the outcome that comes last in the order of `_OUTCOMES`."""
    return max(outcomes, key=lambda outcome: next(n for n, word in enumerate(_OUTCOMES) if outcome.startswith(word)))


def _count(found: list[tuple[Any, str]], task: str | None) -> tuple[str, ...]:
    """Return a row of the table: how many architectures of a task (None: of all) have each outcome."""
    words = [outcome.partition(":")[0].split(" with")[0] for one, outcome in found if task in (None, one["task"])]
    return task or "all", str(len(words)), *(str(words.count(word)) for word in _OUTCOMES)


def _working(found: list[tuple[Any, str]], task: str) -> str:
    """Return the names of the architectures that work; a star marks those with a condition."""
    works = [(one["model_type"], outcome) for one, outcome in found if one["task"] == task]
    return ", ".join(
        f"`{name}`" + ("\\*" if outcome != "works" else "") for name, outcome in works if outcome.startswith("works")
    )


def _with_reason(found: list[tuple[Any, str]], word: str) -> str:
    """Return a table of the architectures with an outcome, and the reason of each."""
    rows = [
        (one["task"], f"`{one['model_type']}`", outcome.removeprefix(f"{word}: ").replace("<", "&lt;"))
        for one, outcome in found
        if outcome.startswith(word)
    ]
    return _table(("task", "model type", "reason"), rows) if rows else "None.\n"


_ENVIRONMENTS_HEAD = """\
The last outcome of these scripts, without the tests that need the demo models. `lowest` installs the oldest releases
that `pyproject.toml` allows, `newest` what pip chose on that day, `pinned` those of `constraints.txt`. `.ci/run` uses
`constraints.txt` too, on Python 3.11.

- *Run again* counts tests that failed at first and ran once more after a fix.
- A run with fewer test files covers those that depend most on releases.
- The scripts write this table. tokswap claims nothing for releases that are not in it.
"""


def environments() -> str:
    """Return the outcomes of the tests with other releases."""
    runs = json.loads((RESULTS / "environments.json").read_text("utf-8"))["runs"]
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
    outcomes = ("test files", "passed", "skipped", "failed", "run again")
    return f"{_ENVIRONMENTS_HEAD}\n" + _table(("script", "Python", *libraries, *outcomes, "date"), rows)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


PAGES: Mapping[Path, Callable[[], str]] = {
    DOCS / "cli.md": cli,
    DOCS / "methods.md": methods,
    DOCS / "compatibility.md": compatibility,
}


def stale() -> list[str]:
    """Return the names of the pages that are out of date."""
    return [path.name for path, render in PAGES.items() if not path.is_file() or path.read_text("utf-8") != render()]


if __name__ == "__main__":
    if "--check" in sys.argv:
        if found := stale():
            sys.exit(f"out of date: {', '.join(found)}; run `make docs`")
    else:
        for path, render in PAGES.items():
            path.write_text(render(), "utf-8")
