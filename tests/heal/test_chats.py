"""Conversations to heal with: rendered as transformers renders them, with the template that it chooses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from makers import CHAT_TEMPLATE, copy_model, edit_json
from transformers import AutoTokenizer

from tokswap.errors import InputError
from tokswap.heal.chats import chat_parts
from tokswap.tokenizer.tokenizer import read_tokenizer

Make = Callable[..., Path]

TALK = [{"role": "user", "content": "Where is\u2028the \x85 harbour?"}, {"role": "assistant", "content": "Down."}]
WITH_SYSTEM = [{"role": "system", "content": "Be brief."}, *TALK]
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}
NAMED = {
    "tool_use": "{{ bos_token }}{% for tool in tools %}[{{ tool.function.name }}]{% endfor %}" + CHAT_TEMPLATE,
    "default": "{{ note_token }}" + CHAT_TEMPLATE,
}
REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT_TEMPLATE


@pytest.fixture
def rendered(tokenizer_of: Make, tmp_path: Path) -> Callable[..., tuple[str, Any]]:
    """Render a line with a tokenizer of some templates; returns that, and the transformers tokenizer."""

    def render(line: object, templates: object) -> tuple[str, Any]:
        folder = copy_model(tokenizer_of("byte-level"), tmp_path / f"tokenizer{len(list(tmp_path.iterdir()))}")
        edit_json(folder / "tokenizer_config.json", chat_template=templates, note_token="<note>")
        path = tmp_path / "chats.jsonl"
        text = json.dumps(line, ensure_ascii="\\ud83d" in json.dumps(line))
        path.write_text(f"{text}\r\n\r\n", encoding="utf-8", newline="")
        ((name, text),) = chat_parts([path], read_tokenizer(folder))
        assert name == "chats.jsonl"
        return text, AutoTokenizer.from_pretrained(folder)

    return render


@pytest.mark.parametrize("tools", [None, [TOOL]])
@pytest.mark.parametrize("order", [("tool_use", "default"), ("default", "tool_use")])
def test_the_template_that_transformers_uses(order: tuple[str, str], tools: Any, rendered: Any) -> None:
    templates = [{"name": name, "template": NAMED[name]} for name in order]
    text, tokenizer = rendered({"messages": TALK, "tools": tools}, templates)
    assert text == tokenizer.apply_chat_template(TALK, tools=tools, tokenize=False)
    assert ("[f]" in text) == (tools is not None)
    if tools is not None:  # data sets keep them as a string
        assert text == rendered({"messages": TALK, "tools": json.dumps(tools)}, templates)[0]


def test_a_system_message_that_the_template_refuses(rendered: Any) -> None:
    text, tokenizer = rendered({"messages": WITH_SYSTEM}, REFUSES)
    joined = [{"role": "user", "content": f"Be brief.\n\n{TALK[0]['content']}"}, TALK[1]]
    assert text == tokenizer.apply_chat_template(joined, tokenize=False)
    with pytest.raises(InputError) as caught:
        rendered({"messages": WITH_SYSTEM[:1]}, REFUSES)
    assert caught.value.code == "bad-chat"


def test_settings_of_a_template(rendered: Any) -> None:
    template = "{{ mood }}" + CHAT_TEMPLATE
    line = {"messages": TALK, "chat_template_kwargs": {"mood": "calm"}}
    text, tokenizer = rendered(line, template)
    assert text == tokenizer.apply_chat_template(TALK, tokenize=False, mood="calm")
    assert rendered([{"role": "user", "content": "\ud83d"}], template)[0].count("?") == 1


def test_a_very_long_conversation_comes_in_parts(tokenizer_of: Make, tmp_path: Path) -> None:
    """A step holds a passage whole: one of a megabyte would take all memory."""
    folder, path = copy_model(tokenizer_of("byte-level"), tmp_path / "tokenizer"), tmp_path / "chats.jsonl"
    edit_json(folder / "tokenizer_config.json", chat_template=CHAT_TEMPLATE)
    path.write_text(json.dumps([{"role": "user", "content": "word " * 10_000}]), "utf-8")
    parts = [text for _, text in chat_parts([path], read_tokenizer(folder))]
    assert max(map(len, parts)) < 12_000
    assert "".join(parts) == f"<|im_start|>user\n{'word ' * 10_000}<|im_end|>\n"
