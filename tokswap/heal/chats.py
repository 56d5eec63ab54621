"""Conversations as text to heal with: JSON lines with messages, rendered with the chat template of the model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokswap.errors import InputError
from tokswap.storage.texts import read_text
from tokswap.tokenizer.tokenizer import Tokenizer


def chat_parts(paths: Sequence[str | Path], tokenizer: Tokenizer) -> Iterator[tuple[str, str]]:
    """Yield conversations as the model reads them, each with the name of its file.

    Args:
        paths: JSON lines; each is an object with `messages`, a list of `role` and `content`, or that list.
        tokenizer: The tokenizer of the model that is healed.

    Raises:
        InputError: no-chat-template, bad-chat, bad-text, empty-text.
    """
    for path in paths:
        template = next(iter(tokenizer.chat_templates.values()), None)
        if template is None:
            message = "conversations need a chat template, and the tokenizer of this model has none"
            raise InputError("no-chat-template", message, "leave out --chat", model=tokenizer.path)
        for number, line in enumerate(read_text(Path(path)).splitlines(), 1):
            if line.strip():
                yield Path(path).name, _rendered(line, template, tokenizer, (path, number))


def _rendered(line: str, template: str, tokenizer: Tokenizer, place: tuple[str | Path, int]) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    roles = tokenizer.vocabulary.roles
    names = {f"{role}_token": tokenizer.vocabulary.text[token] for role, token in roles.items()}
    try:
        value: Any = json.loads(line)
        talk = value["messages"] if isinstance(value, dict) else value
        texts, _ = render_jinja_template([talk], chat_template=template, **names)
    except Exception as error:  # a template can refuse a conversation with any error
        raise InputError(
            "bad-chat",
            f"line {place[1]:,} is no conversation that the chat template takes: {error}",
            'each line must be like {"messages": [{"role": "user", "content": "..."}, ...]}',
            file=place[0],
        ) from error
    text = str(texts[0])
    for token in tokenizer.leading:  # the passage gets these ids anyway
        text = text.removeprefix(tokenizer.vocabulary.text[token])
    return text
