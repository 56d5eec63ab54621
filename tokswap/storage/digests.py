"""SHA-256 of files and folders, which tells contents apart."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def digests(folder: Path) -> dict[str, str]:
    """Return name -> SHA-256 for every file of a folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): digest_of(path) for path in files}


def digest_of(content: bytes | Path) -> str:
    """Return the SHA-256 of bytes, a file or a folder; "" for what is not there."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    if content.is_dir():
        return hashlib.sha256(json.dumps(digests(content)).encode()).hexdigest()
    if not content.is_file():
        return ""
    digest = hashlib.sha256()
    with open(content, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
