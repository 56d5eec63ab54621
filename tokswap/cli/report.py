"""tokswap report."""

from __future__ import annotations

from pathlib import Path

import click

from tokswap.cli import _options, _output
from tokswap.errors import InputError


@click.command(
    epilog="""
\b
Examples:
  tokswap report ./mine-with-theirs
  tokswap report ./my-model-de --out trim.html
"""
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--out", metavar="FILE.html", help="The page. [default: DIR.html in this folder]")
@_options.json_flag
def report(folder: Path, out: str | None, as_json: bool) -> None:
    """Make the report page of a model that a transplant or a trim has written.

    It is the page of their --report flag, made from the file tokswap.json in the folder.
    """
    from tokswap.report.page import check_page, make_page, write_page
    from tokswap.report.record import REPORT_NAME
    from tokswap.storage.json_files import read_json

    path = check_page(out or f"{folder.resolve().name}.html")
    document = read_json(folder / REPORT_NAME, "report")
    try:
        text = make_page({"transplant": "transplant", "trim": "trim"}[document["plan"]["operation"]], document)
    except (ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError) as error:
        message = f"this report is damaged, or of another version: {type(error).__name__}: {error}"
        raise InputError("bad-report", message, file=folder / REPORT_NAME) from error
    write_page(path, text)
    if as_json:
        _output.document({"page": str(path)})
    else:
        click.echo(path)
