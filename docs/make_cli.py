"""Write the pages that come from the code, or with --check say which are out of date.

docs/cli.md comes from the help texts, docs/methods.md from the methods' docstrings and settings, and the list of
methods in README.md from their summaries.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

from tokswap.cli import COMMANDS, main
from tokswap.init import METHODS, method_class, needs_of

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


PAGES: Mapping[Path, Callable[[], str]] = {DOCS / "cli.md": cli, DOCS / "methods.md": methods, README: readme}


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
