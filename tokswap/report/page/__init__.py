"""The report page: one HTML file, readable without a network, on a phone and in the dark, of what a command has found.

Pages are made from the documents that commands give anyway (`tokswap.json`, `--json`); nothing is measured here. `charts`
draws, `svg` makes drawings fit for a page, `parts` is what a page is made of, and each other module tells of one command.
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
from tokswap.storage.atomic import scratch

COMMANDS = ("transplant", "trim", "eval", "compare")
"""The commands that have a page; the module of each is named like it."""

_NEEDED = ("jinja2", "matplotlib")
_MARK = b'<meta name="generator" content="tokswap">'


def check_page(path: str | Path) -> Path:
    """Say before a run whether a page can be made, and written to this path; returns the path.

    A file in its place is replaced only where it is such a page. Raises InputError missing-extra; OutputError
    output-exists, cannot-write.
    """
    path = Path(path)
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        message = f"a report page needs {' and '.join(missing)}"
        raise InputError("missing-extra", message, "pip install 'tokswap[report]'")
    if os.path.lexists(path) and not _is_page(path):
        message = "what stands at the place of the report page is something else"
        raise OutputError("output-exists", message, "choose another name for the page", file=path)
    folder = path.resolve().parent
    while not folder.exists():  # it may be the result's own folder, or lie in it
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        message = f"this folder cannot be written to: {error.strerror}"
        raise OutputError("cannot-write", message, "choose another name for the page", folder=folder) from error
    return path


def make_page(command: str, document: Mapping[str, Any], line: str = "") -> str:
    """Return the page of a command as HTML; the same document gives the same page.

    document: what the command gives as JSON; for transplant and trim the whole Report (`Report.as_dict`, tokswap.json). line:
    the command line, where it is known.
    """
    from tokswap.report.page.parts import html

    return html(
        import_module(f"tokswap.report.page.{command}").page(document), command, line, document.get("versions", {})
    )


def write_page(path: Path, text: str) -> None:
    """Write a page, whole or not at all. Raises OutputError cannot-write, disk-full."""
    try:
        with scratch(path) as folder, open(folder / path.name, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
    except OSError as error:
        message = f"the report page could not be written: {error}"
        raise OutputError("cannot-write", message, "choose another name for the page", file=path) from error


def _is_page(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return _MARK in file.read(1000)
    except OSError:
        return False
