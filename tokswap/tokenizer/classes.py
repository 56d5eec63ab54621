"""What the class of a tokenizer makes of its tokenizer.json.

Some classes of transformers build parts of a tokenizer themselves, and ignore what tokenizer.json says about them. All
add the tokens that tokenizer_config.json and other files name.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokswap.errors import InputError
from tokswap.tokenizer.auto import PLAIN, PLAIN_CLASSES
from tokswap.tokenizer.backend import Backend, check_added_ids, library_errors, parts_backend
from tokswap.tokenizer.schema import model_type
from tokswap.tokenizer.vocabulary import ROLES

_PARTS = ("normalizer", "pre_tokenizer", "decoder", "post_processor")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_MODEL_SETTINGS = {
    "unk_token": None,
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "max_input_chars_per_word": 100,
}
"""Settings of a model besides its tokens, with the library's defaults."""
_TOKEN_LISTS = ("additional_special_tokens", "extra_special_tokens")
_OF_OTHER_CLASSES = ("auto_map", "add_bos_token", "add_eos_token")
"""Settings that would make the plain class do something else than tokenizer.json says."""


def with_todays_parts(spec: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return a tokenizer.json whose parts have today's notation: older ones have no `prepend_scheme`, for instance.

    Args:
        spec: The parsed tokenizer.json.
        path: Where it is from, for error messages.

    Raises:
        InputError: bad-tokenizer.
    """
    backend = parts_backend(spec, path)
    return {**spec, **{part: _state(backend, part) for part in _PARTS}}


def whole_spec(backend: Backend, path: Path) -> dict[str, Any]:
    """Return the tokenizer.json of a backend.

    Raises:
        InputError: unsupported-tokenizer where a part of it is Python code.
    """
    try:
        spec: dict[str, Any] = json.loads(backend.to_str())
    except Exception as error:  # the library raises a bare Exception
        raise _no_json(path, error) from error
    return spec


def changes_of_class(spec: Mapping[str, Any], backend: Backend, class_name: str, path: Path) -> dict[str, Any]:
    """Return what a loaded tokenizer has instead of some parts of its tokenizer.json.

    Args:
        spec: The parsed tokenizer.json, in today's notation.
        backend: The backend of the loaded tokenizer.
        class_name: Its class.
        path: Where tokenizer.json is from, for error messages.

    Returns:
        Keys of a tokenizer.json, and their new values. Parts that only have another notation are left out.

    Raises:
        InputError: bad-tokenizer, unsupported-tokenizer.
    """
    plain = class_name in PLAIN_CLASSES
    added = spec.get("added_tokens") or []
    if plain:
        vocab = spec["model"]["vocab"]  # the library keeps the model's id of a token that the model has
        check_added_ids(backend, [entry for entry in added if not _has(vocab, entry["content"])], path)
    changes: dict[str, Any] = {}
    for part in _PARTS[:3]:
        state = _state(backend, part)
        if _effect(state, part) != _effect(spec.get(part), part):
            changes[part] = state
    with library_errors(path):
        typed = spec.get("post_processor") is not None  # without one, the plain class sets the types of a pair
        if _frames(backend, backend, typed) != _frames(parts_backend(spec, path), backend, typed):
            changes["post_processor"] = _state(backend, "post_processor")
    model = _model_of(spec["model"], backend, plain, path)
    if model is not None:
        changes["model"] = model
    entries = [
        {"id": token, "content": entry.content} | {flag: getattr(entry, flag) for flag in _FLAGS}
        for token, entry in sorted(backend.get_added_tokens_decoder().items())
    ]
    special = {entry["content"] for entry in added if entry.get("special")}
    for entry in entries:  # the library keeps a token special, whatever flags it is added with a second time
        entry["special"] = entry["special"] or entry["content"] in special
    listed = [
        {"id": entry["id"], "content": entry["content"]} | {f: entry.get(f, False) for f in _FLAGS} for entry in added
    ]
    if entries != sorted(listed, key=lambda entry: entry["id"]):
        changes["added_tokens"] = entries
    return changes


def settings_of(config: Mapping[str, Any], tokenizer: Any) -> dict[str, Any]:
    """Return a tokenizer_config.json that names the roles of a loaded tokenizer, also those that its class gives it.

    Args:
        config: The parsed tokenizer_config.json.
        tokenizer: The transformers tokenizer.
    """
    named = {key: str(token) for key, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    absent = {f"{role}_token": None for role in ROLES if f"{role}_token" in config}  # a class may have its own default
    return {**config, **absent, **named, "model_input_names": list(tokenizer.model_input_names)}


def switches_languages(tokenizer: Any) -> bool:
    """Return whether a loaded tokenizer frames texts by the language that its user sets, as those of NLLB and mBART do.

    No tokenizer.json can hold that, so a result keeps the class.

    Args:
        tokenizer: The transformers tokenizer.
    """
    return hasattr(tokenizer, "set_src_lang_special_tokens")


def inputs_of_class(config: Mapping[str, Any]) -> list[str]:
    """Return what the class of a tokenizer takes beside text: boxes (LayoutLM), xpaths (MarkupLM), entities (LUKE).

    Args:
        config: The tokenizer_config.json.
    """
    import transformers

    found = getattr(transformers, str(config.get("tokenizer_class")), None)
    usual, own = (
        set(inspect.signature(cls.__call__).parameters) if cls is not None else set()
        for cls in (getattr(transformers, PLAIN), found)
    )
    return sorted(own - usual)


def special_of_class(config: Mapping[str, Any], tokenizer: Any) -> dict[str, Any]:
    """Return the setting that lists special tokens which only a class names: T5's `<extra_id_0>`, NLLB's languages.

    Args:
        config: The tokenizer_config.json.
        tokenizer: The transformers tokenizer.
    """
    found = [getattr(tokenizer, key, None) for key in _TOKEN_LISTS]  # release 5 has the second, release 4 the first
    named = next((list(map(str, tokens)) for tokens in found if isinstance(tokens, (list, tuple)) and tokens), [])
    return {_TOKEN_LISTS[0]: named} if named and not any(config.get(key) for key in _TOKEN_LISTS) else {}


def plain_settings(config: Mapping[str, Any], tokenizer: Any, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tokenizer_config.json with which the plain class does the same as another class.

    Args:
        config: The tokenizer_config.json, see `settings_of`.
        tokenizer: The transformers tokenizer.
        spec: The tokenizer.json of the result.
    """
    result = {key: value for key, value in config.items() if key not in _OF_OTHER_CLASSES}
    result["tokenizer_class"] = PLAIN
    result |= special_of_class(config, tokenizer)
    for key in ("padding_side", "truncation_side", "clean_up_tokenization_spaces"):
        if hasattr(tokenizer, key):
            result[key] = getattr(tokenizer, key)
    prefix = (spec.get("pre_tokenizer") or {}).get("add_prefix_space")
    if prefix is not None:  # release 4 writes its own default over it
        result["add_prefix_space"] = prefix
    return result


def _has(vocab: Any, content: str) -> bool:
    return content in vocab if isinstance(vocab, dict) else any(entry[0] == content for entry in vocab)


def _state(backend: Backend, part: str) -> Any:
    """Return a part of a backend as parsed JSON."""
    node = getattr(backend, part)
    try:
        return None if node is None else json.loads(node.__getstate__())
    except Exception as error:  # the library raises a bare Exception for Python code
        raise _no_json(Path(part), error) from error


def _no_json(path: Path, error: Exception) -> InputError:
    message = f"a part of this tokenizer is Python code, which a tokenizer.json cannot hold: {error}"
    return InputError("unsupported-tokenizer", message, "use a tokenizer that has a tokenizer.json", file=path)


def _effect(node: Any, part: str) -> list[Any]:
    """Return a part without what has no effect on ids and texts."""
    if node is None:
        return []
    children = next((node[key] for key in ("normalizers", "pretokenizers", "decoders") if key in node), None)
    if children is not None:
        return [effect for child in children for effect in _effect(child, part)]
    if node["type"] == "ByteLevel" and part == "decoder":
        return ["ByteLevel"]
    return [{key: value for key, value in node.items() if key != "trim_offsets"}]


def _frames(backend: Backend, encoder: Backend, typed: bool) -> list[Sequence[int]]:
    """Return the ids, and the types too if `typed`, that a post-processor makes of a text and of a pair of texts."""
    one, other = (encoder.encode(text, add_special_tokens=False) for text in ("a", "b"))
    framed = [backend.post_process(one), backend.post_process(one, other)]
    return [list(part) for text in framed for part in ((text.ids, text.type_ids) if typed else (text.ids,))]


def _model_of(model: Mapping[str, Any], backend: Backend, plain: bool, path: Path) -> Any:
    """Return the model of a backend where it is another one than in tokenizer.json, else None.

    Merges are not compared: the classes that build a model take them from tokenizer.json.
    """
    given, vocab = backend.model, model["vocab"]
    if not plain and isinstance(vocab, list):  # the library does not tell the scores and the unknown token in Python
        whole = whole_spec(backend, path)["model"]
        same = {**model, "type": model_type(model), "byte_fallback": bool(model.get("byte_fallback"))}
        return None if whole == same else whole
    if not plain and (type(given).__name__ != model_type(model) or backend.get_vocab(with_added_tokens=False) != vocab):
        return whole_spec(backend, path)["model"]
    settings = {key: getattr(given, key) for key in _MODEL_SETTINGS if hasattr(given, key)}
    changed = {
        key: value
        for key, value in settings.items()
        if (value or None) != (model.get(key, _MODEL_SETTINGS[key]) or None)
    }
    return {**model, **changed} if changed else None
