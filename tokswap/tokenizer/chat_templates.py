"""The chat templates of a tokenizer: one or several, in files of their own or in tokenizer_config.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokswap.errors import InputError
from tokswap.storage.json_files import read_json
from tokswap.tokenizer.vocabulary import Vocabulary

DEFAULT = "default"
"""Name of the template that is used where nobody names one."""
PROCESSOR = "processor_config.json"
"""The settings of a processor, which belong to the model and may hold a template."""
_FILE, _FOLDER, _OF_PROCESSOR = "chat_template.jinja", "additional_chat_templates", "chat_template.json"


def read_templates(config: Mapping[str, Any], files: Mapping[str, Path]) -> dict[str, str]:
    """Read every chat template. Files win over the config, as in transformers.

    Args:
        config: The parsed tokenizer_config.json.
        files: Name -> path of the other files of the tokenizer, and of `PROCESSOR`.

    Returns:
        Name -> template, {} without one. The template of a processor, which reads images or sound, is "processor"
        where the tokenizer has another or none.

    Raises:
        InputError: bad-tokenizer.
    """
    found = _in_files(files) or _in_config(config.get("chat_template"))
    of_processor = (read_json(files[name], "tokenizer") for name in (PROCESSOR, _OF_PROCESSOR) if name in files)
    content = next((one["chat_template"] for one in of_processor if one.get("chat_template") is not None), None)
    templates = _in_config(content)
    return found | {_processor_name(name): text for name, text in templates.items() if text not in found.values()}


def choose_template(templates: Mapping[str, str], *, with_tools: bool = False) -> str:
    """Return the template that transformers uses for a conversation.

    Args:
        templates: Name -> template, at least one.
        with_tools: Whether the conversation has tools.
    """
    names = [*(["tool_use"] if with_tools else []), DEFAULT, *templates]
    return next(templates[name] for name in names if name in templates)


def token_names(config: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, str]:
    """Return the tokens that a template can write by name, such as `bos_token`.

    Args:
        config: The parsed tokenizer_config.json.
        vocabulary: The tokens of the tokenizer, with their roles.
    """
    tokens = {
        key: entry.get("content") if isinstance(entry, dict) else entry
        for key, entry in config.items()
        if key.endswith("_token")
    }
    roles = {f"{role}_token": vocabulary.text[token] for role, token in vocabulary.roles.items()}
    return {key: text for key, text in tokens.items() if isinstance(text, str)} | roles


def _in_files(files: Mapping[str, Path]) -> dict[str, str]:
    found = {DEFAULT: _read(files[_FILE])} if _FILE in files else {}
    if _FOLDER in files:
        found |= {path.stem: _read(path) for path in sorted(files[_FOLDER].glob("*.jinja"))}
    return found


def _in_config(value: Any) -> dict[str, str]:
    """Read a template, a list of {name, template}, or a mapping of names, which tokenizers in memory have."""
    if isinstance(value, list):
        value = {entry.get("name"): entry.get("template") for entry in value if isinstance(entry, dict)}
    if not isinstance(value, dict):
        value = {DEFAULT: value}
    return {name: text for name, text in value.items() if isinstance(name, str) and isinstance(text, str)}


def _processor_name(name: str) -> str:
    return "processor" if name == DEFAULT else f"processor.{name}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("bad-tokenizer", f"cannot read this chat template: {error}", file=path) from error
