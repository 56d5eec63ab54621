"""What of a result is for the public: the report names inputs of this machine by their last part alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokswap.errors import OutputError
from tokswap.storage.hub import push_folder
from tokswap.storage.json_files import ADAPTER_CONFIG, REPORT_NAME, read_json
from tokswap.storage.resolve import lasting_name, short_name

_OWN = ("plan", "heal")
"""Parts of a report that name inputs; the others hold tokens, which can look like paths."""
_BASE = "base_model_name_or_path"
_CONFIGS = ("config.json", "generation_config.json", "tokenizer_config.json")
_FOLDERS, _FILES = ("_name_or_path", "name_or_path"), ("tokenizer_file", "special_tokens_map_file")
"""Keys under which transformers has written where a model was."""


def push_result(folder: Path | None, repo_id: str, *, private: bool, token: str | None) -> str:
    """Upload a result to the hub, without the paths of this machine; see `push_folder`.

    Args:
        folder: The result, None for one that is only in memory.
        repo_id: OWNER/NAME.
        private: Whether a new repository is private.
        token: Access token, the saved one by default.

    Raises:
        OutputError: not-written, push-failed, login-refused.
    """
    if folder is None:
        raise OutputError("not-written", "this result is only in memory", "name a folder with out=, then push it")
    return push_folder(folder, repo_id, private=private, token=token, instead=published_files(folder))


def published_files(folder: Path) -> dict[str, bytes]:
    """Return the files of a result that are published with another content.

    Args:
        folder: The result.

    Returns:
        Name -> content. The file on disk keeps its paths, by which later commands find the source and the teacher.
    """
    found: dict[str, bytes] = {}
    if (folder / REPORT_NAME).is_file():
        document = read_json(folder / REPORT_NAME, "report")
        own = {part: document[part] for part in _OWN if part in document}
        # The longest first: one path may begin with another.
        paths = sorted(set(_paths(own)), key=len, reverse=True)
        document = {**document, **{part: _shortened(value, paths) for part, value in own.items()}}
        found[REPORT_NAME] = json.dumps(document, ensure_ascii=False).encode()
    if (folder / ADAPTER_CONFIG).is_file():
        config = read_json(folder / ADAPTER_CONFIG, "config")
        config[_BASE] = _shortened(config.get(_BASE), list(_paths(config.get(_BASE))))
        found[ADAPTER_CONFIG] = json.dumps(config, indent=2).encode()
    for name in _CONFIGS:
        if (folder / name).is_file():
            config = read_json(folder / name, "config")
            short = _without_places(config)
            if short != config:
                found[name] = json.dumps(short, indent=2, ensure_ascii=False).encode()
    return found


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config that names no folder of this machine as the place where the model was, at any level."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            found[key] = _without_places(value)
        elif key in _FILES and isinstance(value, str):
            found[key] = Path(value).name
        else:
            found[key] = _shortened(value, [*_paths(value)]) if key in _FOLDERS else value
    return found


def _paths(value: Any) -> Iterator[str]:
    """Yield the strings that are whole paths of this machine."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for entry in value:
            yield from _paths(entry)
    elif isinstance(value, str) and os.path.isabs(value) and len(Path(value).parts) > 2:
        yield value


def _shortened(value: Any, paths: list[str]) -> Any:
    """Return a value in which paths have lost their folders, in sentences too."""
    if isinstance(value, dict):
        return {key: _shortened(entry, paths) for key, entry in value.items()}
    if isinstance(value, list):
        return [_shortened(entry, paths) for entry in value]
    if isinstance(value, str):
        for path in paths:
            value = value.replace(path, _name(path))
    return value


def _name(path: str) -> str:
    """Return the hub id of a path in the hub's cache, else its last part."""
    known = lasting_name(Path(path))
    return short_name(path) if os.path.isabs(known) else known
