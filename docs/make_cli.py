"""Write docs/cli.md from the help texts, or with --check say whether it is up to date."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from click.testing import CliRunner

from tokswap.cli import COMMANDS, main

PAGE = Path(__file__).parent / "cli.md"


def render() -> str:
    """Return the reference page."""
    parts = ["# Command line reference\n\nMade from the help texts by `make docs`.\n"]
    for name in ("", *COMMANDS):
        result = CliRunner().invoke(
            main, [*([name] if name else []), "--help"], prog_name="tokswap", terminal_width=100
        )
        if result.exit_code:
            raise click.ClickException(f"tokswap {name} --help failed: {result.output}")
        parts.append(f"## tokswap {name}".rstrip() + f"\n\n```\n{result.output.rstrip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    page = render()
    if "--check" in sys.argv:
        if not PAGE.is_file() or PAGE.read_text("utf-8") != page:
            sys.exit("docs/cli.md is out of date: run `make docs`")
    else:
        PAGE.write_text(page, "utf-8")
