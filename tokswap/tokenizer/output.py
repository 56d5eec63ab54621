"""The files of a tokenizer in a result: tokenizer.json and tokenizer_config.json. Pure: parsed JSON in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokswap.storage.json_files import json_bytes
from tokswap.tokenizer.post_processor import leading_ids, with_leading


def spec_with_bos(spec: Mapping[str, Any], bos: int, text: str) -> Mapping[str, Any]:
    """Return a tokenizer.json whose encoded texts begin with one token. Unchanged if they already do.

    Args:
        spec: The parsed tokenizer.json.
        bos: The id of the token.
        text: The token, as the tokenizer spells it.
    """
    if bos in leading_ids(spec):
        return spec
    return {**spec, "post_processor": with_leading(spec.get("post_processor"), bos, text)}


def config_of_result(config: Mapping[str, Any], bos: str | None) -> dict[str, Any]:
    """Return the tokenizer_config.json of a result.

    Args:
        config: The parsed tokenizer_config.json of the target tokenizer.
        bos: The token that encoded texts begin with, where the user or the model needs one; else None.
    """
    config = dict(config)
    if not config.get("tokenizer_class") or config["tokenizer_class"] == "TokenizersBackend":
        # Without a class transformers picks one by the model type, which belongs to another tokenizer now.
        # Release 5 calls this class TokenizersBackend and accepts the old name. Release 4 knows only the old name.
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if bos is not None:
        if config["tokenizer_class"] != "PreTrainedTokenizerFast":
            config["add_bos_token"] = True  # family classes of release 5 rebuild the template from this flag
        config["bos_token"] = bos
    return config


def spec_bytes(spec: Mapping[str, Any]) -> bytes:
    """Return a tokenizer.json with one line for each part. One line per token would take seconds to write."""
    return b"{\n" + b",\n".join(json_bytes({key: spec[key]}, indent=None)[1:-1] for key in spec) + b"\n}"
