"""Text files that a user names: plain text in UTF-8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokswap.errors import InputError


def read_text(path: Path) -> str:
    """Read a text file. Line ends stay as they are; a byte order mark is removed.

    Raises:
        InputError: bad-text, empty-text.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError("bad-text", f"cannot read this text: {error.strerror}", file=path) from error
    except UnicodeDecodeError as error:
        raise InputError(
            "bad-text",
            f"this text is not UTF-8: byte {error.object[error.start]:#04x} at {error.start:,}",
            f"convert it, for example with `iconv -f latin1 -t utf-8 {path.name}`",
            file=path,
        ) from error
    if not text.strip():
        raise InputError("empty-text", "this text is empty", file=path)
    return text


def read_texts(paths: Sequence[Path]) -> dict[str, str]:
    """Read text files.

    Returns:
        File name -> text. Files with the same name are listed by their whole path.

    Raises:
        InputError: bad-text, empty-text.
    """
    names = [path.name for path in dict.fromkeys(paths)]
    return {path.name if names.count(path.name) == 1 else str(path): read_text(path) for path in paths}
