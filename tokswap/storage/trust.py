"""Python code that comes with a model. tokswap refuses it unless the user trusts it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from tokswap.errors import InputError


def check_code(folder: str | Path, trusted: bool) -> None:
    """Check for a custom `generate`. transformers 4 runs it without asking, even if no code is trusted.

    Args:
        folder: The model folder.
        trusted: Whether the user trusts the code of this model.

    Raises:
        InputError: remote-code.
    """
    old = metadata.version("transformers").startswith("4.")
    if old and not trusted and (Path(folder) / "custom_generate" / "generate.py").exists():
        raise InputError(
            "remote-code",
            "this model has a `generate` of its own, and transformers 4 runs its Python code without asking",
            "read that code, then allow it with --trust-remote-code; transformers 5 does not run it",
            folder=folder,
        )


def check_remote_code(folder: str | Path, config: Mapping[str, Any], trusted: bool) -> None:
    """Check that a model works without Python code of its own.

    Args:
        folder: The model folder, for the message.
        config: The parsed config.json.
        trusted: Whether the user trusts the code of this model.

    Raises:
        InputError: remote-code.
    """
    if "auto_map" not in config or trusted:
        return
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if config.get("model_type") not in CONFIG_MAPPING_NAMES:
        raise InputError(
            "remote-code",
            "this model runs Python code of its own (`auto_map` in config.json)",
            "read that code first; --trust-remote-code copies it with the model",
            folder=folder,
        )
