"""Checks that config.json holds what tokswap reads, so that no other code has to. Pure: parsed JSON in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokswap.checkpoint.nested_configs import configs
from tokswap.errors import InputError
from tokswap.options.groups import MOST_IDS
from tokswap.tokenizer.schema import is_id, is_ids


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_name(value: Any) -> bool:
    return isinstance(value, str)


def _is_type(value: Any) -> bool:
    return isinstance(value, (str, dict))  # one for each part of a model, in a dictionary


def _is_size(value: Any) -> bool:
    return is_id(value) and value <= MOST_IDS


def _is_words(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_ids, value))


def _is_pairs(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and is_id(pair[0]) and (pair[1] is None or is_id(pair[1]))
        for pair in value
    )


def _is_biases(value: Any) -> bool:
    pairs = list(value.items()) if isinstance(value, dict) else value
    return isinstance(pairs, list) and all(
        isinstance(pair, (list, tuple))
        and len(pair) == 2
        and (isinstance(pair[0], str) or is_ids(pair[0]))
        and isinstance(pair[1], (int, float))
        for pair in pairs
    )


def _is_forms(value: Any) -> bool:
    return isinstance(value, list) and all(is_ids(word) or _is_words(word) for word in value)


_KEYS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "architectures": ("a list of names", _is_names),
    "model_type": ("a name", _is_name),
    "dtype": ("the name of a type", _is_type),
    "torch_dtype": ("the name of a type", _is_type),
    "vocab_size": (f"a number up to {MOST_IDS:,}", _is_size),
    "vocab_size_per_layer_input": (f"a number up to {MOST_IDS:,}", _is_size),
    "suppress_tokens": ("a list of ids", is_ids),
    "begin_suppress_tokens": ("a list of ids", is_ids),
    "sequence_bias": ("a list of words, as ids, and their biases", _is_biases),
    "force_words_ids": ("a list of words, as ids", _is_forms),
    "bad_words_ids": ("a list of lists of ids", _is_words),
    "forced_decoder_ids": ("a list of pairs of numbers", _is_pairs),
}
"""What each key of config.json and generation_config.json must be, where it is set and not null."""


def check_config(config: Mapping[str, Any], path: Path) -> None:
    """Check the values that tokswap reads, at every nesting level.

    Args:
        config: config.json or generation_config.json, parsed.
        path: Where the file is, for the message.

    Raises:
        InputError: bad-config.
    """
    for where, child in configs(config):
        for key, (kind, holds) in _KEYS.items():
            value = child.get(key)
            if value is not None and not holds(value):
                place = f"{where}.{key}" if where else key
                raise InputError("bad-config", f"`{place}` should be {kind}, and is {value!r:.80}", file=path)
