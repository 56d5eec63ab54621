"""tokswap report."""

from __future__ import annotations

from pathlib import Path

import click

from tokswap.cli import _options, _output
from tokswap.errors import InputError

_PAGES = {"transplant": "transplant", "draft": "transplant", "trim": "trim", "extend": "extend"}
"""Operation of a report -> the command whose page shows it."""


@click.command(
    epilog="""
\b
Examples:
  tokswap report ./mine-with-theirs
  tokswap report ./my-model-de --out trim.html
"""
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--out", metavar="FILE.html", help="Output file. [default: DIR.html in the current folder]")
@_options.json_flag
@_options.volume
def report(folder: Path, out: str | None, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Write the report page of a result, from its tokswap.json.

    It is the page that the --report flag of `transplant`, `trim`, `extend` and `heal` writes.
    """
    _options.set_volume(quiet, verbose)
    from tokswap.report.page import check_page, make_page, write_page
    from tokswap.report.record import REPORT_NAME
    from tokswap.storage.json_files import read_json

    folder = folder.parent if folder.name == REPORT_NAME else folder
    path = check_page(out or f"{folder.resolve().name}.html")
    document = read_json(folder / REPORT_NAME, "report")
    try:
        if "plan" in document:
            text = make_page(_PAGES[document["plan"]["operation"]], document)
        else:  # healed, and nothing is known of what was done before
            found = document["heal"]
            text = make_page("heal", {**document, "plan": found, "seconds": found["seconds"]})
    except (ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError) as error:
        message = f"this report is damaged, or from another version: {type(error).__name__}: {error}"
        raise InputError("bad-report", message, file=folder / REPORT_NAME) from error
    write_page(path, text)
    if as_json:
        _output.document({"page": str(path)})
    else:
        click.echo(path)
