"""What config.json must hold so that the rest of tokswap can read it without looking twice. Pure: parsed JSON in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokswap.checkpoint.matrices import configs
from tokswap.errors import InputError
from tokswap.tokenizer.schema import MOST_IDS, is_id, is_ids

_KEYS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "architectures": ("a list of names", lambda v: isinstance(v, list) and all(isinstance(name, str) for name in v)),
    "model_type": ("a name", lambda v: isinstance(v, str)),
    "vocab_size": (f"a number up to {MOST_IDS:,}", lambda v: is_id(v) and v <= MOST_IDS),
    "vocab_size_per_layer_input": (f"a number up to {MOST_IDS:,}", lambda v: is_id(v) and v <= MOST_IDS),
    "suppress_tokens": ("a list of ids", is_ids),
    "begin_suppress_tokens": ("a list of ids", is_ids),
    "bad_words_ids": ("a list of lists of ids", lambda v: isinstance(v, list) and all(map(is_ids, v))),
    "forced_decoder_ids": (
        "a list of pairs of numbers",
        lambda v: (
            isinstance(v, list)
            and all(
                isinstance(pair, list) and len(pair) == 2 and is_id(pair[0]) and (pair[1] is None or is_id(pair[1]))
                for pair in v
            )
        ),
    ),
}
"""Keys of config.json and generation_config.json whose values are read: what each is, null apart."""


def check_config(config: Mapping[str, Any], path: Path) -> None:
    """Raise InputError bad-config where a key that tokswap reads, at any nesting level, is of another kind than it must be."""
    for where, child in configs(config):
        for key, (kind, holds) in _KEYS.items():
            value = child.get(key)
            if value is not None and not holds(value):
                place = f"{where}.{key}" if where else key
                raise InputError("bad-config", f"`{place}` should be {kind}, and is {value!r:.80}", file=path)
