"""Conversations as a chat template writes them, to see which tokens it needs and that a trim changes none of them."""

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
    """Return short conversations in the template's words, those that it accepts; [] without a template."""
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
            except Exception:  # a template may refuse a role, in whatever way it likes
                continue
            found += texts
    return found
