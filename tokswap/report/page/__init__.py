"""The report page: one HTML file about a run, readable without a network, on a phone and in dark mode.

A page shows the document that a command gives anyway (`tokswap.json`, `--json`); nothing is measured here. `sheet` and
`charts` draw, `svg` embeds drawings, `parts` holds the building blocks, and each other module makes the page of one
command.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokswap.errors import InputError, OutputError
from tokswap.storage.atomic import Place, scratch, write_error
from tokswap.storage.resolve import output_path

COMMANDS = ("transplant", "trim", "extend", "heal", "eval", "compare")
"""Commands that have a page. The module of each has its name."""

_NEEDED = ("jinja2", "matplotlib")
_MARK = b'<meta name="generator" content="tokswap">'
_HINT = "choose another name for the page"
_PLACE = Place("the report page", "file", _HINT)


def check_page(path: str | Path) -> Path:
    """Check before a run that a page can be made and written.

    Args:
        path: Where the page will go. An existing file is replaced only if it is a report page.

    Returns:
        The path.

    Raises:
        InputError: missing-extra.
        OutputError: output-exists, cannot-write.
    """
    path = output_path(path)
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        message = f"a report page needs {' and '.join(missing)}"
        raise InputError("missing-extra", message, "pip install 'tokswap[report]'")
    if os.path.lexists(path) and not _is_page(path):
        raise OutputError("output-exists", "the path exists and is not a report page", _HINT, file=path)
    folder = path.resolve().parent
    while not folder.exists():  # the page may go into the result's own folder
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        message = f"this folder cannot be written to: {error.strerror}"
        raise OutputError("cannot-write", message, _HINT, folder=folder) from error
    return path


def make_page(command: str, document: Mapping[str, Any], line: str = "") -> str:
    """Make the page of a command. The same document gives the same page.

    Args:
        command: One of `COMMANDS`.
        document: What the command gives as JSON; for transplant, trim and extend the whole report (`Report.as_dict`,
            tokswap.json).
        line: The command line, where it is known.

    Returns:
        HTML.
    """
    from tokswap.report.page.parts import html

    page = import_module(f"tokswap.report.page.{command}").page(document)
    return html(page, command, line=line, versions=document.get("versions", {}))


def write_page(path: Path, text: str) -> None:
    """Write a page, whole or not at all.

    Args:
        path: Where to write it.
        text: HTML.

    Raises:
        OutputError: cannot-write, disk-full.
    """
    try:
        with scratch(path, _PLACE) as folder, open(folder / path.name, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
    except OSError as error:
        raise write_error(error, path, _PLACE) from error


def _is_page(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return _MARK in file.read(1000)
    except OSError:
        return False
