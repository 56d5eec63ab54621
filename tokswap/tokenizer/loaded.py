"""Tokenizers that are in memory: read as tokswap reads files, and made again from what tokswap has changed."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokswap.errors import InputError, UsageError
from tokswap.storage.atomic import temporary_copy
from tokswap.storage.json_files import json_bytes
from tokswap.storage.resolve import resolve_tokenizer
from tokswap.tokenizer.auto import auto_tokenizer
from tokswap.tokenizer.chat_templates import DEFAULT
from tokswap.tokenizer.classes import settings_of, whole_spec
from tokswap.tokenizer.opened import open_file
from tokswap.tokenizer.tokenizer import SPELLINGS, Tokenizer, read_tokenizer

_NOT_SETTINGS = ("auto_map", "tokenizer_class", "added_tokens_decoder", "name_or_path", "special_tokens_map_file")
_ATTRIBUTES = {
    "padding_side": "right",
    "truncation_side": "right",
    "model_max_length": int(1e30),
    "split_special_tokens": False,
}
"""Settings that may be changed after a tokenizer is loaded, and what they are where nobody sets them."""

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
    found = as_tokenizer(tokenizer[1] if isinstance(tokenizer, tuple) and len(tokenizer) == 2 else tokenizer)
    if found is None:
        found = as_tokenizer(getattr(tokenizer, "tokenizer", None))  # a loaded model with its own
    if found is None:
        message, hint = (
            f"this is not a tokenizer: {type(tokenizer).__name__}",
            "give a name, a Path, or a loaded tokenizer",
        )
        raise UsageError("bad-tokenizer", message, hint)
    return read_loaded(found)


def as_tokenizer(value: Any) -> Any:
    """Return the transformers tokenizer that a value is or has, None for anything else.

    Args:
        value: A transformers tokenizer; a processor, which has one; or a `tokenizers.Tokenizer`, which is copied.
    """
    if hasattr(value, "convert_tokens_to_ids") and hasattr(value, "special_tokens_map"):
        return value
    from tokenizers import Tokenizer as Backend
    from transformers import PreTrainedTokenizerFast, ProcessorMixin

    if isinstance(value, ProcessorMixin):
        return getattr(value, "tokenizer", None)
    return PreTrainedTokenizerFast(tokenizer_object=copy.deepcopy(value)) if isinstance(value, Backend) else None


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
    config = {**settings_of(_settings(tokenizer), tokenizer), "tokenizer_class": type(tokenizer).__name__}
    if tokenizer.chat_template:
        config["chat_template"] = tokenizer.chat_template
    opened = open_file(whole_spec(backend, path), config, path)
    spellings = getattr(tokenizer, "english_spelling_normalizer", None)
    unread = {SPELLINGS: json_bytes(spellings)} if spellings else {}
    return Tokenizer(path, opened.spec, opened.config, edited=True, notes=opened.notes, unread=unread)


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

    spec = tokenizer.output_spec(bos=bos)
    if _has_functions(str(settings.get("tokenizer_class"))):
        files = {"tokenizer.json": json_bytes(spec), "tokenizer_config.json": json_bytes(settings), **tokenizer.unread}
        if SPELLINGS in tokenizer.files:
            files[SPELLINGS] = tokenizer.files[SPELLINGS].read_bytes()

        def save(folder: Path) -> None:
            for name, data in files.items():
                (folder / name).write_bytes(data)

        with temporary_copy(save) as folder:  # only from files does each class make itself
            made = auto_tokenizer(folder)
        made.name_or_path = ""
        return made
    plain = {key: value for key, value in settings.items() if key not in _NOT_SETTINGS}
    plain.pop("chat_template", None)
    templates = tokenizer.chat_templates
    made = PreTrainedTokenizerFast(tokenizer_object=make_backend(spec, tokenizer.path), **plain)
    made.chat_template = templates[DEFAULT] if templates.keys() == {DEFAULT} else templates or None
    return made


def _has_functions(class_name: str) -> bool:
    """Return whether a class can do more than the plain one: set a language (NLLB, Whisper), read boxes (LayoutLM)."""
    import transformers

    found = getattr(transformers, class_name, None)
    more = set(dir(found)) - set(dir(transformers.PreTrainedTokenizerFast)) if found is not None else set()
    return any(callable(getattr(found, name)) for name in more if not name.startswith("_"))


def _settings(tokenizer: Any) -> dict[str, Any]:
    """Return the settings of a transformers tokenizer as they are now, without its chat template."""
    given = {key: value for key, value in tokenizer.init_kwargs.items() if key not in _NOT_SETTINGS and _plain(value)}
    now = {key: getattr(tokenizer, key, default) for key, default in _ATTRIBUTES.items()}
    changed = {key: value for key, value in now.items() if value != given.get(key, _ATTRIBUTES[key])}
    for key in given:  # languages of NLLB and Whisper: the user sets the attribute
        value = getattr(tokenizer, key, None)
        if isinstance(value, (str, bool)) and isinstance(given[key], (str, bool, type(None))):
            changed[key] = value
    return {key: value for key, value in (given | changed).items() if key != "chat_template"}


def _plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
