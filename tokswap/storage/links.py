"""Symbolic links in a model folder. A downloaded folder must not make tokswap copy files from elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tokswap.errors import InputError


def check_links(folder: Path, names: Iterable[str]) -> None:
    """Check that no link leads out of a folder.

    Links into the hub's cache are allowed from anywhere. The cache consists of links: each file of a folder in
    `snapshots` leads into the folder `blobs` beside `snapshots`.

    Args:
        folder: The folder.
        names: Files and folders in it. Missing ones are skipped.

    Raises:
        InputError: outside-link.
    """
    root = folder.resolve()
    for name in names:
        path = folder / name
        for file in (path, *(path.rglob("*") if path.is_dir() else ())):
            real = Path(os.path.realpath(file))  # unlike Path.resolve, does not raise for a link to itself
            blob = real.parent.name == "blobs" and (real.parent.parent / "snapshots").is_dir()
            if not real.is_relative_to(root) and not blob:
                raise InputError(
                    "outside-link",
                    f"{file.relative_to(folder)} is a link that leads out of its folder",
                    "replace the link with the file (a hard link is fine), or give the folder that contains it",
                    folder=folder,
                    leads_to=real,
                )
