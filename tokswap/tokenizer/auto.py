"""Load a tokenizer with transformers, as a user of its folder does. What it does there is what counts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

from tokswap.errors import InputError
from tokswap.storage.json_files import read_json
from tokswap.tokenizer.backend import Backend, library_errors
from tokswap.tokenizer.probes import TEXTS

PLAIN = "PreTrainedTokenizerFast"
"""The class that does what tokenizer.json says. Release 5 calls it TokenizersBackend and accepts the old name."""
PLAIN_CLASSES = (PLAIN, "TokenizersBackend")
_PLACES = ("boxes", "xpaths")
_NEEDS = (("*.tiktoken", "tiktoken"), ("tiktoken.model", "tiktoken"), ("*.model", "sentencepiece"))
"""Vocabulary files, and the packages without which transformers cannot read them."""
_SAVE_AS_JSON = "use a tokenizer that has a tokenizer.json: tokswap cannot edit one that is Python code"


def auto_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """Load the tokenizer of a folder with transformers, as a user of the checkpoint would.

    Args:
        folder: The folder.
        trust_remote_code: Whether transformers may run Python code of the folder.

    Raises:
        InputError: bad-tokenizer, remote-code, missing-extra.
    """
    from transformers import AutoTokenizer

    with _readable_errors(folder), _any_type_of_model():
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=trust_remote_code)


def usable_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """Load the tokenizer of a folder as its special tokens work: in texts too.

    The plain class stands in for Python code of the folder that may not run, for a class that finds no special tokens
    in a text, and for one that reads no text, but words and their places on a page.

    Args:
        folder: The folder.
        trust_remote_code: Whether transformers may run Python code of the folder.

    Raises:
        InputError: bad-tokenizer, remote-code, missing-extra.
    """
    try:
        loaded = auto_tokenizer(folder, trust_remote_code=trust_remote_code)
    except InputError as error:
        if error.code != "remote-code" or not (folder / "tokenizer.json").is_file():
            raise
        return plain_tokenizer(folder)
    return _with_special(loaded, folder) if has_blind_spot(loaded) or _reads_pages(loaded) else loaded


def has_blind_spot(tokenizer: Any) -> bool:
    """Return whether a class without a backend finds no special token in a text, as that of mistral-common.

    Args:
        tokenizer: A transformers tokenizer.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is not None:
        return False
    special = {token: tokenizer.convert_tokens_to_ids(token) for token in tokenizer.all_special_tokens}
    found = (list(tokenizer.encode(text, add_special_tokens=False)) == [token] for text, token in special.items())
    return bool(special) and not any(found)


def _reads_pages(tokenizer: Any) -> bool:
    """Return whether a class asks for words with their boxes or paths (LayoutLM, UDOP, MarkupLM)."""
    names = signature(type(tokenizer).__call__).parameters
    return getattr(tokenizer, "backend_tokenizer", None) is not None and not names.keys().isdisjoint(_PLACES)


def _with_special(tokenizer: Any, folder: Path) -> Any:
    """Return the plain tokenizer that stands in for a class, and finds special tokens in a text."""
    from transformers import PreTrainedTokenizerFast

    roles = {role: token for role, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    return PreTrainedTokenizerFast(tokenizer_object=backend_of(tokenizer, folder), **roles)


def plain_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a folder with the class that does what tokenizer.json says, whatever the folder names.

    Raises:
        InputError: bad-tokenizer, missing-extra.
    """
    from transformers import PreTrainedTokenizerFast

    with _readable_errors(folder):
        return PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)


def added_ids(tokenizer: Any) -> dict[str, int]:
    """Return added token -> id of a loaded tokenizer. That of mistral-common has no `get_added_vocab`.

    Args:
        tokenizer: A transformers tokenizer.
    """
    if hasattr(tokenizer, "get_added_vocab"):
        return dict(tokenizer.get_added_vocab())
    return {token: tokenizer.convert_tokens_to_ids(token) for token in tokenizer.all_special_tokens}


def backend_of(tokenizer: Any, folder: Path) -> Backend:
    """Return the backend of a loaded tokenizer, with truncation and padding disabled.

    A class without a backend is Python code. Where the plain class gives the same ids, its backend stands in.

    Args:
        tokenizer: A transformers tokenizer.
        folder: Where it is from.

    Raises:
        InputError: unsupported-tokenizer.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None) or _stand_in(tokenizer, folder)
    if backend is None:
        message = f"{type(tokenizer).__name__} has no backend in the tokenizers library"
        raise InputError("unsupported-tokenizer", message, _SAVE_AS_JSON, folder=folder)
    backend.no_truncation()
    backend.no_padding()
    return backend


def _stand_in(tokenizer: Any, folder: Path) -> Backend | None:
    """Return the backend of the plain class where it gives the same ids as a class without a backend, else None."""
    from tokenizers.processors import TemplateProcessing

    try:
        backend = plain_tokenizer(folder).backend_tokenizer
        special = tokenizer.all_special_tokens
        named = sorted(zip(tokenizer.convert_tokens_to_ids(special), special, strict=True))
        backend.add_special_tokens([token for _, token in named if backend.token_to_id(token) is None])
        front, back = _frame(tokenizer)
        names = dict(named)
        single, pair = [*map(names.get, front), "$A", *map(names.get, back)], ["$B", *map(names.get, back)]
        known = [(names[token], token) for token in {*front, *back}]
        backend.post_processor = TemplateProcessing(single=single, pair=[*single, *pair], special_tokens=known)
        same = all(backend.token_to_id(token) == number for number, token in named) and all(
            backend.encode(text, add_special_tokens=framed).ids
            == list(tokenizer.encode(text, add_special_tokens=framed))
            for text in TEXTS.values()
            for framed in (True, False)
        )
    except Exception:  # the Python code of a class may raise anything, and so may the reading of files not meant for it
        return None
    return backend if same else None


def _frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the ids that a tokenizer puts before and after a text."""
    text = next(iter(TEXTS.values()))
    framed, ids = list(tokenizer.encode(text)), list(tokenizer.encode(text, add_special_tokens=False))
    start = next(n for n in range(len(framed)) if framed[n : n + len(ids)] == ids)
    return framed[:start], framed[start + len(ids) :]


@contextmanager
def _any_type_of_model() -> Iterator[None]:
    """Keep transformers from warning about a type of model that it lacks: only the tokenizer is loaded."""

    def others(record: logging.LogRecord) -> bool:
        return "using a model of type" not in record.getMessage()

    logger = logging.getLogger("transformers.configuration_utils")
    logger.addFilter(others)
    try:
        yield
    finally:
        logger.removeFilter(others)


@contextmanager
def _readable_errors(folder: Path) -> Iterator[None]:
    """Turn whatever a class of transformers raises into an error of tokswap."""
    try:
        with library_errors(folder):  # the library's panics are no Exceptions
            yield
    except InputError as error:
        raise _readable(error.__cause__ or error, folder) from error


def _readable(error: BaseException, folder: Path) -> InputError:
    """Return the error of tokswap for whatever a class of transformers has raised."""
    if "trust_remote_code" in str(error):
        return InputError(
            "remote-code",
            "this tokenizer runs Python code of its own (`auto_map` in tokenizer_config.json)",
            "read that code first, then allow it with --trust-remote-code",
            folder=folder,
        )
    missing = _missing_packages(folder)
    if missing or isinstance(error, ImportError):
        what = ", ".join(missing) or str(error).strip().splitlines()[0]
        hint = "pip install 'tokswap[tokenizers]'"
        return InputError("missing-extra", f"reading this tokenizer needs another package: {what}", hint, folder=folder)
    if (folder / "tekken.json").exists() and not (folder / "tokenizer.json").exists():
        message = "this release of transformers cannot read a tekken.json"
        return InputError("unsupported-tokenizer", message, "pip install 'transformers>=5'", folder=folder)
    if wrong := _wrong_config(folder, error):
        return wrong
    hint = "save the tokenizer again with save_pretrained, with the release of transformers that it was made for"
    return InputError("bad-tokenizer", f"transformers cannot load this tokenizer: {error}", hint, folder=folder)


def _wrong_config(folder: Path, error: BaseException) -> InputError | None:
    """Return the error of tokswap where transformers cannot read config.json, which it needs for a tokenizer too."""
    from transformers import AutoConfig

    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as found:  # a class may raise anything
        if str(found) != str(error):
            return None
        reason, hint = str(error), "save the model again with save_pretrained"
        if wrong := next(_wrong_types(read_json(path, "config")), ""):
            reason, hint = f"there is no dtype {wrong!r}", 'write it as torch names it, such as "float32"'
        return InputError("bad-config", f"transformers cannot read this config.json: {reason}", hint, file=path)
    return None


def _wrong_types(config: Any) -> Iterator[str]:
    """Yield the types of weights that a config names, at every level, and torch does not have."""
    import torch

    for key, value in config.items() if isinstance(config, dict) else ():
        if key in ("dtype", "torch_dtype") and isinstance(value, str):
            yield from [] if isinstance(getattr(torch, value, None), torch.dtype) else [value]
        yield from _wrong_types(value)


def _missing_packages(folder: Path) -> list[str]:
    """Return the package that the vocabulary file of a folder needs, where it is not installed."""
    if (folder / "tokenizer.json").exists():
        return []
    needed = next((package for pattern, package in _NEEDS if any(folder.glob(pattern))), "")
    return [needed] if needed and find_spec(needed) is None else []
