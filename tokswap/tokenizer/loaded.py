"""Tokenizers that are in memory: read as tokswap reads files, and made again from what tokswap has changed."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokswap.errors import InputError
from tokswap.storage.resolve import resolve_tokenizer
from tokswap.tokenizer.chat_templates import DEFAULT
from tokswap.tokenizer.classes import settings_of, whole_spec
from tokswap.tokenizer.opened import open_file
from tokswap.tokenizer.schema import check_tokenizer
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer

_NOT_SETTINGS = ("auto_map", "tokenizer_class", "added_tokens_decoder", "name_or_path", "special_tokens_map_file")


TokenizerLike = str | Path | Any
"""A folder, hub id, alias, .gguf file or tokenizer.json; a transformers tokenizer; or a loaded model with its own."""


def open_tokenizer(tokenizer: TokenizerLike, *, trust_remote_code: bool = False) -> Tokenizer:
    """Read a tokenizer, by name or from memory. A `Tokenizer` is returned as it is.

    Raises:
        UsageError, InputError: where there is no such tokenizer or it cannot be used.
    """
    if isinstance(tokenizer, Tokenizer):
        return tokenizer
    if isinstance(tokenizer, (str, Path)):
        return read_tokenizer(resolve_tokenizer(str(tokenizer)), trust_remote_code=trust_remote_code)
    if isinstance(tokenizer, tuple):
        return read_loaded(tokenizer[1])
    return read_loaded(tokenizer if is_tokenizer(tokenizer) else tokenizer.tokenizer)


def is_tokenizer(value: Any) -> bool:
    """Return whether a value is a transformers tokenizer."""
    return hasattr(value, "convert_tokens_to_ids") and hasattr(value, "special_tokens_map")


def read_loaded(tokenizer: Any) -> Tokenizer:
    """Read a transformers tokenizer that is in memory.

    Raises:
        InputError: unsupported-tokenizer where it has no fast backend; bad-tokenizer, duplicate-ids.
    """
    path = Path(getattr(tokenizer, "name_or_path", "") or "loaded tokenizer")
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        hint = "load it with AutoTokenizer.from_pretrained(..., use_fast=True)"
        raise InputError("unsupported-tokenizer", f"{type(tokenizer).__name__} has no fast backend", hint)
    spec = whole_spec(backend, path)
    check_tokenizer(spec, path)
    settings = {
        key: value for key, value in tokenizer.init_kwargs.items() if key not in _NOT_SETTINGS and _plain(value)
    }
    config = {**settings_of(settings, tokenizer), "tokenizer_class": type(tokenizer).__name__}
    if tokenizer.chat_template:
        config["chat_template"] = tokenizer.chat_template
    opened = open_file(spec, config, path)
    return Tokenizer(path, opened.spec, opened.config, edited=True, notes=opened.notes)


def to_transformers(tokenizer: Tokenizer, settings: Mapping[str, Any], *, bos: int | None, original: Any = None) -> Any:
    """Return a transformers tokenizer that does what a `Tokenizer` describes.

    Args:
        tokenizer: The tokenizer of a result.
        settings: Its tokenizer_config.json.
        bos: Id that it must put first, None to leave its template alone.
        original: The transformers tokenizer that it was read from; copied where nothing has changed.
    """
    if original is not None and bos is None:
        made = copy.deepcopy(original)
        made.model_max_length = settings.get("model_max_length", made.model_max_length)
        return made
    from transformers import PreTrainedTokenizerFast

    from tokswap.tokenizer.backend import make_backend

    plain = {key: value for key, value in settings.items() if key not in _NOT_SETTINGS}
    plain.pop("chat_template", None)
    templates = tokenizer.chat_templates
    made = PreTrainedTokenizerFast(
        tokenizer_object=make_backend(tokenizer.output_spec(bos=bos), tokenizer.path), **plain
    )
    made.chat_template = templates[DEFAULT] if templates.keys() == {DEFAULT} else templates or None
    return made


def _plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
