"""Short conversations in the words of the chat templates: they show which tokens those need, and that a trim has them.

A template can do anything, so all kinds of conversations are tried, and those that it accepts count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tokswap.tokenizer.chat_templates import token_names
from tokswap.tokenizer.tokenizer import Tokenizer

Conversation = list[dict[str, Any]]

_USER: dict[str, Any] = {"role": "user", "content": "?"}
_ASSISTANT: dict[str, Any] = {"role": "assistant", "content": "!"}
_SYSTEM: dict[str, Any] = {"role": "system", "content": "."}
_PLAIN: tuple[Conversation, ...] = (
    [_USER],
    [_USER, _ASSISTANT, _USER],
    [_SYSTEM, _USER, _ASSISTANT, _USER],
)
_CALL_ID = "abcdef123"
"""Mistral's templates want nine letters and digits."""
_PARAMETERS = {
    "type": "object",
    "properties": {"x": {"type": "string", "description": "x", "enum": ["1"]}, "y": {"type": "integer"}},
    "required": ["x"],
}
_TOOLS = [
    {"type": "function", "function": {"name": name, "description": name, "parameters": _PARAMETERS}} for name in "fg"
]
_DOCUMENTS = [{"doc_id": "1", "title": "t", "text": "d", "content": "d"}, {"title": "u", "text": "e", "content": "e"}]
_MEDIA = ("image", "image_url", "video", "audio", "input_audio")
_SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"tools": _TOOLS},
    {"documents": _DOCUMENTS},
    {"tools": _TOOLS, "documents": _DOCUMENTS},
)
_ASKED = re.compile(r"\b(?:(?:if|elif|and|or|not)\s+([a-z]\w*)\b(?![.(\[])|([a-z]\w*)\s+is\s)")
"""Where a template asks for a setting of its own, such as `enable_thinking`."""
_ASSIGNED = re.compile(r"\b(?:set|for)\s+([a-z]\w*)\b")
_NO_SETTINGS = {"messages", "tools", "documents", "add_generation_prompt", "not", "in", "loop", "message"}
_VALUES = (True, False, "low", "high")
_MOST_ASKED = 24


@dataclass(frozen=True)
class Chats:
    """The conversations that the chat templates of a tokenizer accept, as text.

    Attributes:
        plain: With users, assistants and a system alone.
        others: With tools, thinking, documents, images and whatever else a template knows.
        refusing: The names of the templates that refuse all plain conversations.
    """

    plain: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    refusing: tuple[str, ...] = ()


def render_chats(tokenizer: Tokenizer) -> Chats:
    """Render short conversations with every chat template of a tokenizer."""
    plain: dict[str, None] = {}
    others: dict[str, None] = {}
    refusing = []
    names = token_names(tokenizer.config, tokenizer.vocabulary)
    for name, template in tokenizer.chat_templates.items():
        found = dict.fromkeys(text for talk in _PLAIN for text in _rendered(template, talk, names))
        if not found:
            refusing.append(name)
        plain |= found
        for talk, settings in _other_requests(template):
            others |= dict.fromkeys(_rendered(template, talk, {**names, **settings}))
    return Chats(tuple(plain), tuple(text for text in others if text not in plain), tuple(refusing))


def _rendered(template: str, talk: Conversation, settings: Mapping[str, Any]) -> Iterator[str]:
    from transformers.utils.chat_template_utils import render_jinja_template

    for prompt in (False, True):
        try:
            texts, _ = render_jinja_template([talk], chat_template=template, add_generation_prompt=prompt, **settings)
        except Exception:  # a template can refuse a role, a part or a setting with any error
            continue
        yield from texts


def _other_requests(template: str) -> Iterator[tuple[Conversation, dict[str, Any]]]:
    """Yield conversations and settings that are not plain."""
    talks = [*_PLAIN, *_tool_talks(), *_thinking_talks(), *_media_talks()]
    for settings in _SETTINGS:
        for talk in talks:
            yield talk, settings
    for name in _own_settings(template):
        for value in _VALUES:
            for talk in (_PLAIN[0], _PLAIN[-1], *_thinking_talks()):
                for settings in _SETTINGS[:2]:
                    yield talk, {**settings, name: value}


def _own_settings(template: str) -> list[str]:
    """Return the names that a template asks for and does not assign."""
    asked = {name for match in _ASKED.findall(template) for name in match if name}
    own = asked - _NO_SETTINGS - set(_ASSIGNED.findall(template))
    return sorted(name for name in own if not name.endswith("_token"))[:_MOST_ASKED]


def _tool_talks() -> Iterator[Conversation]:
    """Conversations that call tools. Templates expect calls and results in different forms."""
    for arguments in ({"x": "1", "y": 2}, '{"x": "1", "y": 2}'):
        for content in ("", "!", None):
            call = {"id": _CALL_ID, "type": "function", "function": {"name": "f", "arguments": arguments}}
            calls = {"role": "assistant", "content": content, "tool_calls": [call]}
            both = {**calls, "tool_calls": [call, {**call, "id": _CALL_ID[::-1]}]}
            for role in ("tool", "ipython", "function"):
                result = {"role": role, "name": "f", "tool_call_id": _CALL_ID, "content": "0"}
                yield [_USER, calls, result, _ASSISTANT]
                yield [_SYSTEM, _USER, both, result, {**result, "tool_call_id": _CALL_ID[::-1]}]
            yield [_USER, calls]


def _thinking_talks() -> Iterator[Conversation]:
    """Conversations with the thoughts of the assistant: in a field of their own, or in the text."""
    for field in ("reasoning_content", "reasoning", "thinking"):
        yield [_USER, {**_ASSISTANT, field: "~"}]
        yield [_USER, {**_ASSISTANT, field: "~"}, _USER, {**_ASSISTANT, field: "~"}]
    for text in ("<think>\n~\n</think>\n\n!", "[THINK]~[/THINK]!"):
        yield [_USER, {**_ASSISTANT, "content": text}, _USER, {**_ASSISTANT, "content": text}]
    parts = [{"type": "thinking", "thinking": "~"}, {"type": "text", "text": "!"}]
    yield [_USER, {"role": "assistant", "content": parts}]


def _media_talks() -> Iterator[Conversation]:
    """Conversations in parts: text alone, and with an image, a video or sound."""
    text = {"type": "text", "text": "?"}
    yield [{"role": "system", "content": [text]}, {"role": "user", "content": [text]}]
    yield [{"role": "developer", "content": "."}, _USER]
    for kind in _MEDIA:
        part = {"type": kind, kind: "x"}
        yield [{"role": "user", "content": [part, text]}]
        yield [{"role": "user", "content": [text, part, part]}, _ASSISTANT, {"role": "user", "content": [part]}]
