"""Conversations as text to heal with: JSON lines with messages, rendered with the chat template of the model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokswap.errors import InputError
from tokswap.heal.text import PASSAGE_BYTES, split
from tokswap.storage.texts import read_text
from tokswap.tokenizer.chat_templates import choose_template, token_names
from tokswap.tokenizer.tokenizer import Tokenizer

_LONGEST = 8 * PASSAGE_BYTES
"""Bytes of the longest conversation that is one passage: a step holds a passage whole, and its memory grows with it."""


def chat_parts(paths: Sequence[str | Path], tokenizer: Tokenizer) -> Iterator[tuple[str, str]]:
    """Yield conversations as the model reads them, each with the name of its file; very long ones come in parts.

    Args:
        paths: JSON lines; each is an object with `messages`, a list of `role` and `content`, or that list. `tools`,
            `documents` and `chat_template_kwargs` of an object go to the template.
        tokenizer: The tokenizer of the model that is healed.

    Raises:
        InputError: no-chat-template, bad-chat, bad-text, empty-text.
    """
    for path in paths:
        if not tokenizer.chat_templates:
            message = "conversations need a chat template, and the tokenizer of this model has none"
            raise InputError("no-chat-template", message, "leave out --chat", model=tokenizer.path)
        # Not `splitlines`: JSON may hold other line separators of Unicode, and a conversation is one line.
        for number, line in enumerate(read_text(Path(path)).split("\n"), 1):
            if line.strip():
                text = _rendered(line, tokenizer, (path, number))
                yield from ((Path(path).name, part) for part in split(text, _LONGEST))


def _rendered(line: str, tokenizer: Tokenizer, place: tuple[str | Path, int]) -> str:
    try:
        value: Any = json.loads(line)
        text = _render(value if isinstance(value, dict) else {"messages": value}, tokenizer)
    except Exception as error:  # a template can refuse a conversation with any error
        raise InputError(
            "bad-chat",
            f"line {place[1]:,} is not a conversation that the chat template takes: {error}",
            'each line must be like {"messages": [{"role": "user", "content": "..."}, ...]}',
            file=place[0],
        ) from error
    for token in tokenizer.leading:  # the passage gets these ids anyway
        text = text.removeprefix(tokenizer.vocabulary.text[token])
    return text


def _render(value: Mapping[str, Any], tokenizer: Tokenizer) -> str:
    """Render a conversation as transformers does. The first user says a system message that the template refuses."""
    from transformers.utils.chat_template_utils import render_jinja_template

    tools = value.get("tools") or None
    settings = {
        **token_names(tokenizer.config, tokenizer.vocabulary),
        **(value.get("chat_template_kwargs") or {}),
        "tools": json.loads(tools) if isinstance(tools, str) else tools,  # data sets keep them as a string
        "documents": value.get("documents") or None,
        "chat_template": choose_template(tokenizer.chat_templates, with_tools=tools is not None),
    }
    talk = value["messages"]
    try:
        texts, _ = render_jinja_template([talk], **settings)
    except Exception:
        if [message["role"] for message in talk[:2]] != ["system", "user"]:
            raise
        first = {**talk[1], "content": f"{talk[0]['content']}\n\n{talk[1]['content']}"}
        texts, _ = render_jinja_template([[first, *talk[2:]]], **settings)
    return str(texts[0]).encode("utf-8", "replace").decode()  # JSON can spell half a surrogate pair
