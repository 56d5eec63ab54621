"""The texts of files that a user names: plain text, JSON lines and parquet, also packed with gzip, in a stream."""

from __future__ import annotations

import codecs
import glob
import gzip
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tokswap.errors import InputError

_READ_BYTES = 1 << 20
_LINE_BYTES = 64 << 20
"""Longest line of JSON lines: a packed file of a few kB can hold a line that fills the memory."""


Parts = Iterator[tuple[str, bool]]
"""Parts of texts, and whether each is the last of its text."""


def find_files(name: str) -> tuple[Path, ...]:
    """Return the files that a user names: one, those of a pattern, or all of a folder but what is hidden (`.git`)."""
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        return tuple(sorted(file for file in path.rglob("*") if file.is_file() and not _hidden(file, path)))
    if path.exists():
        return (path,)
    return tuple(sorted(Path(found) for found in glob.glob(str(path), recursive=True) if os.path.isfile(found)))


def text_files(name: str | Path) -> tuple[Path, ...]:
    """Return the files of a text that a user names.

    Raises:
        InputError: bad-text where there is none.
    """
    files = find_files(str(name))
    if not files:
        message = "the folder holds no file" if Path(name).expanduser().is_dir() else "there is no such text"
        raise InputError("bad-text", message, "give a file, a folder, or a pattern in quotes", file=name)
    return files


def whole_documents(name: str | Path, key: str) -> Iterator[str]:
    """Yield the texts that a user names with a file, a folder or a pattern, each whole.

    Raises:
        InputError: bad-text, missing-field, missing-extra.
    """
    parts: list[str] = []
    for file in text_files(name):
        for part, is_last in documents(file, key):
            parts.append(part)
            if is_last:
                yield "".join(parts)
                parts.clear()


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def documents(path: Path, key: str) -> Parts:
    """Yield the texts of a file.

    Args:
        path: A text file, or a .jsonl, .ndjson or .parquet file. All but parquet can be packed as .gz. A .json file is
            one of JSON lines or of an array where these have the field, and plain text otherwise.
        key: Name of the text field in JSON lines and parquet files.

    Yields:
        The text of a line or row, whole, and True; or part of a text file, and whether it is the last.

    Raises:
        InputError: bad-text, missing-field, missing-extra.
    """
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        yield from _parquet(path, key)
        return
    try:
        with open(path, "rb") as plain, _unpacked(path, plain) as file:
            if name.endswith((".jsonl", ".ndjson")):
                yield from _json_lines(path, file, key)
            elif name.endswith(".json"):
                yield from _json(path, file, key)
            else:
                yield from _plain(path, file)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError("bad-text", f"this file cannot be read: {error}", file=path) from error


def _unpacked(path: Path, file: IO[bytes]) -> IO[bytes]:
    return gzip.open(file) if path.name.endswith(".gz") else file  # type: ignore[return-value]


def _plain(path: Path, file: IO[bytes]) -> Parts:
    decode = codecs.getincrementaldecoder("utf-8-sig")().decode
    read, is_last = 0, False
    while not is_last:
        data = file.read(_READ_BYTES)
        is_last = not data
        try:
            yield decode(data, final=is_last), is_last
        except UnicodeDecodeError as error:
            at = read + len(data) - len(error.object) + error.start  # object: what was left over, then the data
            raise _not_utf8(path, error, f"at byte {at:,}") from error
        read += len(data)


def _json_lines(path: Path, file: IO[bytes], key: str) -> Parts:
    for number, line in enumerate(iter(lambda: file.readline(_LINE_BYTES + 1), b""), 1):
        if len(line) > _LINE_BYTES:
            raise InputError("bad-text", f"line {number:,} is longer than {_LINE_BYTES:,} bytes", file=path)
        if not line.strip():
            continue
        try:
            value: Any = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise _not_utf8(path, error, f"in line {number:,}") from error
        except (ValueError, RecursionError) as error:
            raise InputError("bad-text", f"line {number:,} is not JSON: {error}", file=path) from error
        yield from _record(path, value, key, f"line {number:,}")


def _json(path: Path, file: IO[bytes], key: str) -> Parts:
    """Yield the texts of a .json file: data sets are often saved as JSON lines or as an array with this ending."""
    first = file.readline(_LINE_BYTES + 1)
    file.seek(0)
    if _has_text(_parsed(first), key):
        yield from _json_lines(path, file, key)
        return
    records = None
    if first.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"[":
        data = file.read(_LINE_BYTES + 1)
        if len(data) > _LINE_BYTES:
            message = f"this JSON array is longer than {_LINE_BYTES:,} bytes"
            raise InputError("bad-text", message, "save it as JSON lines (.jsonl)", file=path)
        records = _parsed(data)
        file.seek(0)
    if isinstance(records, list) and records and _has_text(records[0], key):
        for number, record in enumerate(records, 1):
            yield from _record(path, record, key, f"entry {number:,}")
    else:
        yield from _plain(path, file)


def _parsed(data: bytes) -> Any:
    """Return what some JSON says, None where it is not JSON."""
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _has_text(value: Any, key: str) -> bool:
    return isinstance(value.get(key), str) if isinstance(value, dict) else isinstance(value, str)


def _record(path: Path, value: Any, key: str, place: str) -> Parts:
    """Yield the text of a record; one whose text is null is left out, as in parquet files."""
    if isinstance(value, dict) and key in value and value[key] is None:
        return
    if not _has_text(value, key):
        raise _no_field(path, key, place, list(value) if isinstance(value, dict) else [])
    text = value[key] if isinstance(value, dict) else value
    # JSON can spell half a surrogate pair, and no tokenizer takes it.
    yield text.encode("utf-8", "replace").decode(), True


def _parquet(path: Path, key: str) -> Parts:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        hint = "pip install 'tokswap[parquet]'"
        raise InputError("missing-extra", "parquet files need pyarrow", hint, file=path) from error
    try:
        with ParquetFile(path) as file:
            if key not in file.schema_arrow.names:
                raise _no_field(path, key, "this file", file.schema_arrow.names)
            for batch in file.iter_batches(columns=[key], batch_size=1024):
                yield from ((text, True) for text in batch.column(0).to_pylist() if isinstance(text, str))
    except (ArrowException, OSError, ValueError) as error:
        raise InputError("bad-text", f"this parquet file cannot be read: {error}", file=path) from error


def _not_utf8(path: Path, error: UnicodeDecodeError, place: str) -> InputError:
    hint = "convert it, for example with `iconv -f ENCODING -t UTF-8`"
    return InputError("bad-text", f"this file is not UTF-8: {error.reason} {place}", hint, file=path)


def _no_field(path: Path, key: str, place: str, names: list[str]) -> InputError:
    known = f"; it has {', '.join(f'`{name}`' for name in names[:10])}" if names else ""
    hint = "name the field that holds the text with --field"
    if {"messages", "conversations"} & set(names):
        hint += "; conversations are for `tokswap heal --chat`"
    return InputError("missing-field", f"{place} has no text in `{key}`{known}", hint, file=path)
