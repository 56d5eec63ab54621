"""A tokenizer's folder, read as AutoTokenizer reads it: what it tokenizes with, and what the user should know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokswap.errors import InputError
from tokswap.storage.json_files import read_json
from tokswap.tokenizer.auto import PLAIN, PLAIN_CLASSES, auto_tokenizer, backend_of, has_blind_spot, plain_tokenizer
from tokswap.tokenizer.backend import Backend
from tokswap.tokenizer.classes import (
    changes_of_class,
    plain_settings,
    settings_of,
    special_of_class,
    switches_languages,
    whole_spec,
    with_todays_parts,
)
from tokswap.tokenizer.tiktoken_files import find_tiktoken, read_tiktoken

_OF_THE_FILE = ("normalizer", "pre_tokenizer", "decoder")
_MOST_NAMED = 5
_BLIND = "finds no special tokens in a text, such as those that a chat template writes; the tokenizer of a result does"


@dataclass(frozen=True)
class Opened:
    """A tokenizer as it is loaded.

    Attributes:
        spec: Its tokenizer.json.
        config: Its tokenizer_config.json, with all roles. It names a class with which both say the same.
        edited: Whether `spec` does something else than the file.
        notes: What the user should know.
        backend: The tokenizer of the library, where it is the one that `spec` describes.
    """

    spec: Mapping[str, Any]
    config: Mapping[str, Any]
    edited: bool = False
    notes: tuple[str, ...] = ()
    backend: Backend | None = None


def open_file(spec: Mapping[str, Any], config: Mapping[str, Any], path: Path) -> Opened:
    """Return the tokenizer that a tokenizer.json describes, without its dropout.

    Args:
        spec: The parsed tokenizer.json.
        config: The parsed tokenizer_config.json.
        path: Where it is from, for error messages.

    Raises:
        InputError: bad-tokenizer.
    """
    return _without_dropout(Opened(with_todays_parts(spec, path), config))


def open_folder(
    folder: Path,
    spec: Mapping[str, Any] | None,
    config: Mapping[str, Any],
    *,
    prefer_file: bool = False,
    trust_remote_code: bool = False,
) -> Opened:
    """Return the tokenizer that AutoTokenizer gives for a folder.

    Args:
        folder: The folder.
        spec: Its parsed tokenizer.json, None without one.
        config: Its parsed tokenizer_config.json.
        prefer_file: Whether to tokenize as tokenizer.json says where the class tokenizes otherwise.
        trust_remote_code: Whether transformers may run Python code of the folder.

    Raises:
        InputError: bad-tokenizer, unsupported-tokenizer, missing-extra, remote-code.
    """
    loaded, notes = _load(folder, spec is not None, trust_remote_code and _has_code(folder, config))
    backend = backend_of(loaded, folder)
    if has_blind_spot(loaded):
        notes = (*notes, f"{type(loaded).__name__} {_BLIND}")
    settings, path = settings_of(config, loaded), folder / "tokenizer.json"
    languages = switches_languages(loaded)
    prefer_file = prefer_file and not languages
    if spec is None:
        whole = whole_spec(backend, folder)
        if not languages:
            settings = plain_settings(settings, loaded, whole)
        return _without_dropout(Opened(whole, settings, True, notes=notes, backend=backend))
    name = type(loaded).__name__
    spec = with_todays_parts(spec, path)
    changes = changes_of_class(spec, backend, name, path)
    rebuilt = sorted(set(changes) - {"post_processor", "added_tokens"})
    kept = _file_wins(changes, spec) if prefer_file else changes
    result = {**spec, **kept}
    if languages:
        settings |= {"tokenizer_class": name, **special_of_class(config, loaded)}
    elif rebuilt or (name in PLAIN_CLASSES and config.get("tokenizer_class", name) not in PLAIN_CLASSES):
        settings = plain_settings(settings, loaded, result)
    if rebuilt:
        notes = (*notes, _rebuilt_note(name, rebuilt, prefer_file, languages))
    notes = (*notes, *_added_notes(spec, result))
    same = kept == changes
    return _without_dropout(Opened(result, settings, bool(kept), notes=notes, backend=backend if same else None))


def _has_code(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether the tokenizer is Python code of the folder. The code of the model need not run to read its tokenizer."""
    path = folder / "config.json"
    configs = (config, read_json(path, "config") if path.is_file() else {})
    return any("AutoTokenizer" in (found.get("auto_map") or {}) for found in configs)


def _load(folder: Path, has_file: bool, trust_remote_code: bool) -> tuple[Any, tuple[str, ...]]:
    """Load a folder. Where its class is untrusted code, its files do without; a note says so."""
    file = None if has_file else find_tiktoken(folder)
    try:
        return auto_tokenizer(folder, trust_remote_code=trust_remote_code), ()
    except InputError as error:
        if file is None and not (has_file and error.code == "remote-code"):
            raise
    if file is not None:
        loaded, note = read_tiktoken(file)
        return loaded, (note,)
    note = (
        "the tokenizer has Python code of its own (`auto_map`), which was not run: tokswap works with its "
        "tokenizer.json, and a result needs no code; --trust-remote-code runs it"
    )
    return plain_tokenizer(folder), (note,)


def _file_wins(changes: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the changes of a class that only change the tokenization: neither tokens nor ids."""
    kept = {key: value for key, value in changes.items() if key not in _OF_THE_FILE}
    if "model" in kept and kept["model"]["vocab"] == spec["model"]["vocab"]:
        del kept["model"]
    return kept


def _rebuilt_note(name: str, rebuilt: list[str], prefer_file: bool, languages: bool) -> str:
    parts = " and ".join(part.replace("_", "-") for part in rebuilt)
    if prefer_file:
        return (
            f"transformers loads this tokenizer with {name}, which replaces its {parts}: the result does what "
            "tokenizer.json says, with the class PreTrainedTokenizerFast"
        )
    how = "keeps the class, which switches languages" if languages else "does the same with the class " + PLAIN
    return (
        f"transformers loads this tokenizer with {name}, which replaces the {parts} of tokenizer.json: tokswap works "
        f"with what the class does, and a result {how}"
    )


def _added_notes(spec: Mapping[str, Any], result: Mapping[str, Any]) -> tuple[str, ...]:
    """Say which tokens only other files than tokenizer.json, or the class, name."""
    known = {entry["content"] for entry in spec.get("added_tokens") or []}
    vocab = spec["model"]["vocab"]
    known |= vocab.keys() if isinstance(vocab, dict) else {entry[0] for entry in vocab}
    new = [entry for entry in result.get("added_tokens") or [] if entry["content"] not in known]
    if not new:
        return ()
    named = ", ".join(f"{entry['content']!r} ({entry['id']})" for entry in new[:_MOST_NAMED])
    more = f" and {len(new) - _MOST_NAMED:,} more" if len(new) > _MOST_NAMED else ""
    return (f"these tokens are not in tokenizer.json, and transformers adds them when it loads it: {named}{more}",)


def _without_dropout(opened: Opened) -> Opened:
    """Turn off BPE dropout: it belongs to training, and with it a text is tokenized otherwise each time."""
    model = opened.spec["model"]
    if not model.get("dropout"):
        return opened
    note = (
        f"tokenizer.json has a BPE dropout of {model['dropout']}, which tokenizes a text otherwise each time: tokswap "
        "tokenizes without it, and a result has none"
    )
    if opened.backend is not None:
        opened.backend.model.dropout = None
    spec = {**opened.spec, "model": {**model, "dropout": None}}
    return Opened(spec, opened.config, True, notes=(*opened.notes, note), backend=opened.backend)
