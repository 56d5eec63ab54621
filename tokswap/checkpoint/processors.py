"""What the processor of images and sound writes: the tokens that it knows by name, and the text around them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokswap.checkpoint.facts import model_facts
from tokswap.checkpoint.id_map import IdMap
from tokswap.checkpoint.nested_configs import id_list, id_role, text_configs
from tokswap.storage.json_files import read_configs
from tokswap.tokenizer.vocabulary import ROLES

_FILES = "*processor_config.json"
_NAMED = ("extra_special_tokens", "model_specific_special_tokens")
"""Keys of tokenizer_config.json that give names to tokens. Processors ask their tokenizer for `image_token`."""
_PROMPTS = ("query_prefix", "visual_prompt_prefix", "default_transcription_prompt")
_AROUND_MEDIA = ("\n\n", "\nFrame1: ", "\nFrame from 00:12:", "<0.5 seconds>", " 0.5 seconds[>[")
"""What the classes of processors put around images, and before the frames of a video (Gemma 3, InternVL, Qwen3-VL)."""

Processors = Mapping[str, Mapping[str, Any]]
"""Name of a file -> its parsed JSON."""


def read_processors(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the files of a model's processors, {} without any.

    Raises:
        InputError: bad-config, outside-link.
    """
    return read_configs(folder, (_FILES,))


def edit_processors(processors: Processors, ids: IdMap) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the files in which a token has another name in the new vocabulary, and notes.

    Args:
        processors: What `read_processors` has read.
        ids: How ids translate.
    """
    changed, lost = {}, dict[str, None]()
    for name, config in processors.items():
        # A chat template comes with the tokenizer, in a file of its own; transformers would prefer this one.
        edited = _renamed({key: entry for key, entry in config.items() if key != "chat_template"}, ids, lost)
        if edited != config:
            changed[name] = edited
    notes = [f"the processor needs the token {text!r}, and the target tokenizer has none like it" for text in lost]
    return changed, notes


def processor_texts(config: Mapping[str, Any], processors: Processors) -> list[str]:
    """Return the texts that the processor of a model writes into prompts.

    Args:
        config: The config.json of the model.
        processors: What `read_processors` has read.
    """
    if not processors or not model_facts(config).multimodal:
        return []
    found = [
        settings[key] for settings in processors.values() for key in _PROMPTS if isinstance(settings.get(key), str)
    ]
    return [*found, *_AROUND_MEDIA]


def named_tokens(
    settings: Mapping[str, Any], target: Mapping[str, Any], ids: IdMap, config: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a tokenizer_config.json must have besides, so that a processor finds its tokens by name.

    A processor that finds no name writes the token that its class knows. Where that has another text now, config.json
    tells what it is: `image_token_id` is the id of `image_token`.

    Args:
        settings: The tokenizer_config.json of the source.
        target: That of the result.
        ids: How ids translate.
        config: The config.json of the source.
    """
    found = _names_in(config, ids)
    for names in (settings.get(key) for key in _NAMED):
        for name, entry in names.items() if isinstance(names, dict) else ():
            text = entry.get("content") if isinstance(entry, dict) else entry
            new = _new_name(text, ids) if isinstance(text, str) else None
            if new is not None:
                found[name] = new
    if not found:
        return {}
    own: Any = next((target[key] for key in _NAMED if isinstance(target.get(key), dict)), {})
    key = _NAMED[1] if isinstance(target.get(_NAMED[0]), list) else _NAMED[0]
    return {key: {**found, **own}}


def _names_in(config: Mapping[str, Any], ids: IdMap) -> dict[str, str]:
    """Return name -> new text of the tokens that a config names and that have another text now."""
    found: dict[str, str] = {}
    for _, child in text_configs(config):
        for key, value in child.items():
            role, old = id_role(key), id_list(value)
            if role is None or role in ROLES or len(old) != 1 or not 0 <= old[0] < len(ids.source):
                continue
            new = ids.translate(old[0])
            if new is not None and ids.target.text[new] != ids.source.text[old[0]]:
                found[f"{role}_token"] = ids.target.text[new]
    return found


def _renamed(value: Any, ids: IdMap, lost: dict[str, None]) -> Any:
    if not isinstance(value, Mapping):
        return value
    result = {}
    for key, entry in value.items():
        if str(key).endswith("_token") and isinstance(entry, str) and entry in ids.source.id_of_text:
            new = _new_name(entry, ids)
            if new is None:
                lost[entry] = None
            result[key] = new if new is not None else entry
        else:
            result[key] = _renamed(entry, ids, lost)
    return result


def _new_name(text: str, ids: IdMap) -> str | None:
    """Return what a token of the source is called in the new vocabulary, None where there is none like it."""
    if text in ids.target.id_of_text:
        return text
    old = ids.source.id_of_text.get(text)
    new = ids.translate(old) if old is not None else None
    return ids.target.text[new] if new is not None else None
