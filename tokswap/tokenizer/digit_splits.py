"""How `transplant --digits` splits numbers, and how such a tokenizer is recognised. Pure: parsed JSON in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tokswap.tokenizer.post_processor import nodes

DIGIT_SPLITS = {
    "single": "[0-9]",
    "groups": "[0-9]{1,3}",
    "right-to-left": "[0-9]{1,3}(?=(?:[0-9]{3})*(?![0-9]))",
}
"""Scheme -> pattern of the last part of the pre-tokenizer."""
_DIGIT = re.compile(b"[0-9]")
_GROUP = re.compile(b"[0-9]{1,3}")


def digit_rule(spec: Mapping[str, Any]) -> Callable[[bytes], bool] | None:
    """Return a function that says whether such a pre-tokenizer leaves the bytes of a token whole.

    Args:
        spec: The parsed tokenizer.json.

    Returns:
        The function, None without such a pre-tokenizer.
    """
    patterns = [part.get("pattern") for part in nodes(spec.get("pre_tokenizer"))]
    found = [scheme for scheme, pattern in DIGIT_SPLITS.items() if {"Regex": pattern} in patterns]
    if not found:
        return None
    whole = _DIGIT if found == ["single"] else _GROUP
    return lambda token_bytes: _DIGIT.search(token_bytes) is None or whole.fullmatch(token_bytes) is not None
