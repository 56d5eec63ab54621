"""JSON files: read with checks, written as UTF-8."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokswap.errors import InputError

_MOST_DEPTH = 64


def too_deep(value: dict[str, Any]) -> bool:
    """Return whether parsed JSON is nested deeper than any file that is meant to be read."""
    level: list[Any] = [value]
    for _ in range(_MOST_DEPTH):
        # One comprehension: a tokenizer.json has a list for each of half a million merges.
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)
            if type(child) is list or type(child) is dict
        ]
        if not level:
            return False
    return True


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON object. Raises InputError: missing-<what>, bad-<what>."""
    try:
        with open(path, "rb") as file:
            value = json.load(file)
    except FileNotFoundError as error:
        hint = "give the folder of a model, as save_pretrained writes it"
        raise InputError(f"missing-{what}", f"there is no {path.name} here", hint, folder=path.parent) from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"bad-{what}", f"cannot read this file as JSON: {error}", file=path) from error
    if not isinstance(value, dict):
        raise InputError(f"bad-{what}", "this file should hold a JSON object", file=path)
    if too_deep(value):
        raise InputError(f"bad-{what}", "this file is nested deeper than any that is meant to be read", file=path)
    return value


def json_bytes(value: object, *, indent: int | None = 2) -> bytes:
    """Return a JSON file. Half a surrogate pair, which UTF-8 cannot hold, stays the escape that it was."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent).encode()
