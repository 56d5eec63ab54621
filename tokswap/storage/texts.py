"""The texts that a user names, whole in memory: for lists and for measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tokswap.errors import InputError, UsageError
from tokswap.storage.documents import whole_documents


def read_text(path: Path) -> str:
    """Read a file of plain text. Line ends stay as they are; a byte order mark is removed.

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


def check_texts(texts: Mapping[str, object], *, needed: bool = False) -> None:
    """Check what is given as texts by name: each is a str, and where they are needed there is one.

    Raises:
        UsageError: bad-setting.
        InputError: empty-text.
    """
    for name, text in texts.items():
        if not isinstance(text, str):
            message = f"the text {name!r} is a {type(text).__name__}, not a str"
            raise UsageError("bad-setting", message, 'give what is in the file: {"notes": path.read_text()}')
    if needed and not texts:
        raise InputError("empty-text", "there is no text to evaluate", 'give one by name: {"notes": text}')


def read_list(name: str | Path, field: str = "text") -> list[str]:
    """Read a list of one entry a line. The texts of JSON lines and parquet files are entries.

    Args:
        name: Files of any kind that `read_texts` takes.
        field: Name of the text field in JSON lines and parquet files.

    Raises:
        InputError: bad-text, empty-text, missing-field, missing-extra.
    """
    lines = [line for text in whole_documents(name, field) for line in text.splitlines()]
    if not any(line.strip() for line in lines):
        raise InputError("empty-text", "this text is empty", file=name)
    return lines


def read_texts(names: Sequence[str | Path], field: str = "text") -> dict[str, str]:
    """Read texts, one for each name.

    Args:
        names: Files, folders or patterns: plain text, JSON lines, parquet, also packed as .gz. The documents of a name
            become one text, with an empty line between them.
        field: Name of the text field in JSON lines and parquet files.

    Returns:
        File name -> text. Names that end alike are listed whole.

    Raises:
        InputError: bad-text, empty-text, missing-field, missing-extra.
    """
    paths = list(dict.fromkeys(map(Path, names)))
    ends = [path.name for path in paths]
    return {path.name if path.name and ends.count(path.name) == 1 else str(path): _read(path, field) for path in paths}


def _read(path: Path, field: str) -> str:
    text = "\n\n".join(whole_documents(path, field))
    if not text.strip():
        raise InputError("empty-text", "this text is empty", file=path)
    return text
