"""Text models of the CLIP family, whose classes take the highest id of a text for its eos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokswap.evaluation.verify.folder import Folder

_ALWAYS = ("xclip", "owlvit", "owlv2", "sam3_lite_text")
_WITH_EOS_2 = ("clip", "clipseg", "groupvit")
"""These look for eos where the config names another id."""


def takes_highest(folder: Folder) -> bool:
    """Return whether the class of a model takes the highest id of a text for its eos."""
    kind = _kind(folder.config)
    text: Mapping[str, Any] = folder.config.get("text_config") or folder.config
    return kind in _ALWAYS or (kind in _WITH_EOS_2 and text.get("eos_token_id") == 2)


def eos_is_last(folder: Folder) -> bool:
    """Return whether no token comes after eos."""
    last = max(token for token, text in enumerate(folder.vocabulary) if text is not None)
    return bool(last == folder.tokenizer.eos_token_id)


def _kind(config: Mapping[str, Any]) -> str:
    return str(config.get("model_type")).removesuffix("_text_model")
