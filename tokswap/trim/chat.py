"""Short conversations in the words of a chat template. They show which tokens it needs, and that a trim keeps them."""

from __future__ import annotations

from typing import Any

from tokswap.tokenizer.tokenizer import Tokenizer

_USER = {"role": "user", "content": "?"}
_ASSISTANT = {"role": "assistant", "content": "!"}
_CONVERSATIONS: tuple[list[dict[str, Any]], ...] = (
    [_USER],
    [_USER, _ASSISTANT, _USER],
    [{"role": "system", "content": "."}, _USER, _ASSISTANT, _USER],
)


def renderings(tokenizer: Tokenizer) -> list[str]:
    """Render short conversations with the chat template of a tokenizer.

    Returns:
        The conversations that the template accepts, as text; an empty list without a template.
    """
    template = tokenizer.chat_template
    if template is None:
        return []
    from transformers.utils.chat_template_utils import render_jinja_template

    vocabulary = tokenizer.vocabulary
    names = {f"{role}_token": vocabulary.text[token] for role, token in vocabulary.roles.items()}
    found: list[str] = []
    for conversation in _CONVERSATIONS:
        for prompt in (False, True):
            try:
                texts, _ = render_jinja_template(
                    [conversation], chat_template=template, add_generation_prompt=prompt, **names
                )
            except Exception:  # a template can refuse a role with any error
                continue
            found += texts
    return found
