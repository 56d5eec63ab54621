"""What a chat template adds to a conversation, and whether a reply repeats it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from tokswap.errors import InputError

Messages = Sequence[tuple[str, str]]
"""The role and content of each message."""
_MESSAGE = "zqxxqz"
"""Stands for a message where the text around it is wanted."""


def check_template(name: str, templates: Collection[str]) -> None:
    """Refuse a model whose tokenizer has no chat template.

    Raises:
        InputError: no-chat-template.
    """
    if not templates:
        message = "the chat probe needs a chat template, and the tokenizer of this model has none"
        raise InputError("no-chat-template", message, "leave out --probe chat", model=name)


def opened(tokenizer: Any, messages: Messages) -> list[int]:
    """Return the ids of a conversation, up to where the reply begins.

    Raises:
        InputError: bad-chat.
    """
    return list(_rendered(tokenizer, messages, tokenize=True)["input_ids"])


def markers(tokenizer: Any) -> list[str]:
    """Return the texts that belong to the chat template: the special tokens, and what it puts around messages."""
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    roles = ("system", "user", "assistant", "user")
    text = _rendered(tokenizer, [(role, _MESSAGE) for role in roles], tokenize=False)
    apart = "|".join(re.escape(token) for token in ["\n", _MESSAGE, *sorted(special, key=len, reverse=True)])
    around = [piece.strip() for piece in re.split(apart, text)]
    return list(dict.fromkeys([*special, *(piece for piece in around if any(map(str.isalpha, piece)))]))


def repeats(tokenizer: Any, reply: Sequence[int], marks: Sequence[str]) -> bool:
    """Return whether a reply holds a marker, or a line that is only the name of a role.

    Args:
        tokenizer: The tokenizer of the model.
        reply: The ids of the reply, without the token that ends it.
        marks: What `markers` returns.
    """
    text = str(tokenizer.decode(reply))
    lines = {line.strip() for line in text.splitlines()}
    return any(mark in lines if mark.isalpha() else mark in text for mark in marks)


def _rendered(tokenizer: Any, messages: Messages, *, tokenize: bool) -> Any:
    """Render a conversation. If the template takes no system message, put its text into the first user message."""
    talk = [{"role": role, "content": content} for role, content in messages]
    try:
        return _render(tokenizer, talk, tokenize)
    except Exception as error:  # a template can refuse a conversation with any error
        if talk[0]["role"] == "system":
            joined = f"{talk[0]['content']}\n\n{talk[1]['content']}"
            return _rendered(tokenizer, [("user", joined), *messages[2:]], tokenize=tokenize)
        message = f"the chat template refuses a plain conversation: {error}"
        raise InputError("bad-chat", message, "repair the chat template, or leave out --probe chat") from error


def _render(tokenizer: Any, talk: list[dict[str, str]], tokenize: bool) -> Any:
    """Let transformers render it. A model that can think before it replies does not."""
    return tokenizer.apply_chat_template(
        talk, add_generation_prompt=True, tokenize=tokenize, return_dict=tokenize, enable_thinking=False
    )
