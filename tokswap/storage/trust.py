"""Code that comes with a model: refused unless the user trusts it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from tokswap.errors import InputError


def check_code(folder: str | Path, trusted: bool) -> None:
    """Raise InputError remote-code where transformers 4 would run a folder's own `generate`, whatever trust it is given."""
    old = metadata.version("transformers").startswith("4.")
    if old and not trusted and (Path(folder) / "custom_generate" / "generate.py").exists():
        raise InputError(
            "remote-code",
            "this model has a `generate` of its own, whose Python code transformers 4 runs unasked",
            "read that code; `--trust-remote-code` lets it run, and transformers 5 leaves it alone",
            folder=folder,
        )


def check_remote_code(folder: str | Path, config: Mapping[str, Any], trusted: bool) -> None:
    """Raise InputError remote-code where a model needs code of its own and the user has not trusted it."""
    if "auto_map" not in config or trusted:
        return
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if config.get("model_type") not in CONFIG_MAPPING_NAMES:
        raise InputError(
            "remote-code",
            "this model runs code of its own (`auto_map` in config.json)",
            "read that code first; --trust-remote-code takes it along",
            folder=folder,
        )
