"""--report: the page that a command writes about its findings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tokswap.cli._options import Command


def flag(command: Command) -> Command:
    """Add --report FILE.html to a command."""
    text = "Also write a report page: charts and tables in one HTML file that needs no network."
    return click.option("--report", "page", metavar="FILE.html", help=text)(command)


def check(page: str | None, *, dry_run: bool = False) -> Path | None:
    """Check before a run that its page can be made and written.

    Args:
        page: Value of --report.
        dry_run: Value of --dry-run.

    Returns:
        Path of the page, None without --report.

    Raises:
        UsageError: of click, for --report with --dry-run.
        InputError: missing-extra.
        OutputError: output-exists, cannot-write.
    """
    if page is None:
        return None
    if dry_run:
        raise click.UsageError("--report shows a finished run: leave out --dry-run")
    from tokswap.report.page import check_page

    return check_page(page)


def write(page: Path | None, command: str, document: Mapping[str, Any], *, quiet: bool = False) -> None:
    """Write a page and say where it is.

    Args:
        page: Where to write it, None to write nothing.
        command: Name of the command.
        document: Its findings, as it prints them with --json.
        quiet: Whether to say nothing.

    Raises:
        OutputError: cannot-write, disk-full.
    """
    if page is None:
        return
    from tokswap.report.page import make_page, write_page

    write_page(page, make_page(command, document, click.get_current_context().meta.get("tokswap.line", "")))
    if not quiet:
        click.echo(f"report page: {page}", err=True)
