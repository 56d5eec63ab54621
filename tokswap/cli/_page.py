"""--report: the page that a command can write about what it has found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tokswap.cli._options import Command


def flag(command: Command) -> Command:
    """--report FILE.html."""
    text = "Write a page about it too: charts and tables in one file that needs no network."
    return click.option("--report", "page", metavar="FILE.html", help=text)(command)


def check(page: str | None, *, dry_run: bool = False) -> Path | None:
    """Refuse, before anything is done, a page that cannot be made or written; returns its path, None without --report."""
    if page is None:
        return None
    if dry_run:
        raise click.UsageError("--report tells of a finished run: leave out --dry-run")
    from tokswap.report.page import check_page

    return check_page(page)


def write(page: Path | None, command: str, document: Mapping[str, Any], *, quiet: bool = False) -> None:
    """Write the page, if one was asked for, and say where it is."""
    if page is None:
        return
    from tokswap.report.page import make_page, write_page

    write_page(page, make_page(command, document, click.get_current_context().meta.get("tokswap.line", "")))
    if not quiet:
        click.echo(f"report page: {page}", err=True)
