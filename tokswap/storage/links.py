"""Links in a model's folder: where they may lead. A folder from elsewhere must not make its reader copy other files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tokswap.errors import InputError


def check_links(folder: Path, names: Iterable[str]) -> None:
    """Raise InputError outside-link where a file of a folder is a link that leads out of it.

    names: files and folders in `folder`; those that are not there are passed over. The hub's cache is made of links: each
    file of a folder of `snapshots` leads into the folder `blobs` beside it, and may do so from wherever it is linked.
    """
    root = folder.resolve()
    for name in names:
        path = folder / name
        for file in (path, *(path.rglob("*") if path.is_dir() else ())):
            real = Path(os.path.realpath(file))  # unlike Path.resolve, says nothing of a link to itself
            blob = real.parent.name == "blobs" and (real.parent.parent / "snapshots").is_dir()
            if not real.is_relative_to(root) and not blob:
                raise InputError(
                    "outside-link",
                    f"{file.relative_to(folder)} is a link that leads out of its folder",
                    "put the file itself in its place (a hard link will do), or give the folder that it lies in",
                    folder=folder,
                    leads_to=real,
                )
