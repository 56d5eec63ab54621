"""Types of models whose tokenizers transformers loads with one class, and how a folder gets the plain class instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CLASS_OF_MODEL_TYPE = {
    "hyperclovax_vision_v2": "GPT2Tokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3_5": "Qwen3_5Tokenizer",
    "qwen3_5_moe": "Qwen3_5Tokenizer",
    "qwen3_5_moe_text": "Qwen3_5Tokenizer",
    "qwen4_exp": "Qwen3_5Tokenizer",
    "siglip2": "Siglip2Tokenizer",
}
"""Model types whose tokenizers transformers 5 loads with this class, whatever tokenizer_config.json says."""

CODE_FILE = "tokenization_tokswap.py"
_CODE = b'''"""Written by tokswap: transformers would load this tokenizer with the class of another one.

It is read only with `trust_remote_code=True`; without it transformers uses the plain class by itself.
"""

from transformers import PreTrainedTokenizerFast


class PlainTokenizer(PreTrainedTokenizerFast):
    """A tokenizer that does what its tokenizer.json says."""
'''


def with_own_class(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Make AutoTokenizer load what tokenizer.json describes, whatever the type of the model.

    transformers leaves a config alone that names a class of its own, and then uses the plain one without trust.

    Args:
        settings: A tokenizer_config.json.

    Returns:
        The tokenizer_config.json, and the file of code that it names.
    """
    named = {"AutoTokenizer": [None, f"{CODE_FILE.removesuffix('.py')}.PlainTokenizer"]}
    return {**settings, "auto_map": named}, {CODE_FILE: _CODE}
