"""JSON files: read with checks, written as UTF-8."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokswap.errors import InputError
from tokswap.storage.links import check_links

REPORT_NAME = "tokswap.json"
"""The report beside the weights of a result."""
ADAPTER_CONFIG = "adapter_config.json"
"""What a folder of a PEFT adapter has in place of config.json."""
ADAPTER_HINT = "this is a PEFT adapter: merge it into its model (merge_and_unload), save that, and give its folder"
_MOST_DEPTH = 64


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.
        what: The kind of file, for the error codes: "config", "tokenizer", ...

    Raises:
        InputError: missing-<what>, bad-<what>.
    """
    try:
        with open(path, "rb") as file:
            value = json.load(file)
    except FileNotFoundError as error:
        raise _missing(path, what) from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"bad-{what}", f"cannot read this file as JSON: {error}", file=path) from error
    if not isinstance(value, dict):
        raise InputError(f"bad-{what}", "this file must contain a JSON object", file=path)
    if _too_deep(value):
        raise InputError(f"bad-{what}", f"this file is nested more than {_MOST_DEPTH} levels deep", file=path)
    return value


def _missing(path: Path, what: str) -> InputError:
    hint = "give a model folder, as save_pretrained writes it"
    if what == "report":
        hint = "give a folder that tokswap has written"
    if what == "config" and (path.parent / ADAPTER_CONFIG).is_file():
        hint = ADAPTER_HINT
    elif what == "config" and (inside := _newest_model(path.parent)) is not None:
        hint = f"give the folder of a model inside it, such as {inside}"
    elif what == "config" and (path.parent / "modules.json").is_file():
        hint = "tokswap reads models of sentence-transformers that have a transformer, not StaticEmbedding"
    message = f"there is no {path.name} here" if path.parent.is_dir() else "there is no such folder"
    return InputError(f"missing-{what}", message, hint, folder=path.parent)


def read_configs(folder: Path, patterns: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read the configs in a model folder that have some names.

    Args:
        folder: The folder.
        patterns: Names or patterns, relative to it.

    Returns:
        Relative name -> parsed JSON, in the order of the patterns.

    Raises:
        InputError: bad-config, outside-link.
    """
    paths = [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()]
    names = [path.relative_to(folder).as_posix() for path in paths]
    check_links(folder, names)
    return {name: read_json(path, "config") for name, path in zip(names, paths, strict=True)}


def json_bytes(value: object, *, indent: int | None = 2) -> bytes:
    """Return a value as a JSON file in UTF-8.

    Half a surrogate pair cannot be written in UTF-8. A value that contains one is written with escapes only.

    Args:
        value: Any value that `json.dumps` takes.
        indent: Spaces per level; None writes one line.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent).encode()


def _newest_model(folder: Path) -> Path | None:
    """Return the last model inside a folder: of a training's checkpoints, or of the hub's cache."""
    found = [path for pattern in ("*/config.json", "snapshots/*/config.json") for path in folder.glob(pattern)]
    return max(found, key=lambda path: path.stat().st_mtime).parent if found else None


def _too_deep(value: dict[str, Any]) -> bool:
    level: list[Any] = [value]
    for _ in range(_MOST_DEPTH):
        # One comprehension, because it must be fast: a tokenizer.json has a list for each of half a million merges.
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)
            if type(child) is list or type(child) is dict
        ]
        if not level:
            return False
    return True
