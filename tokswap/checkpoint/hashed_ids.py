"""Models that look up runs of tokens by a hash of their ids, such as the n-gram embeddings of Qwen4-Exp.

With other ids the same text has other hashes, and so the embeddings of other texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokswap.checkpoint.id_map import IdMap
from tokswap.errors import InputError


def check_hashes(config: Mapping[str, Any], ids: IdMap) -> None:
    """Refuse other ids for a model that hashes them. New tokens behind the old ones change no hash.

    Args:
        config: The config of the text model.
        ids: How ids translate.

    Raises:
        InputError: hashed-ids.
    """
    if not config.get("ple_layer_ids") or "ngram_size" not in config:
        return
    if any(ids.translate(token) != token for token, text in enumerate(ids.source.text) if text):
        raise InputError(
            "hashed-ids",
            f"{config.get('model_type')} looks up runs of tokens by a hash of their ids, which would be other ones",
            "extend its vocabulary, which keeps the ids; only a model without `ple_layer_ids` can get others",
        )
