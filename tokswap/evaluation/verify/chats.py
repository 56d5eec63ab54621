"""Checks on conversations: every chat template of the reference, rendered by both tokenizers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

from tokswap.errors import count_of
from tokswap.evaluation.checks import Check, check_empty
from tokswap.evaluation.verify.folder import Folder
from tokswap.evaluation.verify.reference import Reference

Chat = dict[str, Any]
"""Arguments of `apply_chat_template`."""


def chat_check(folder: Folder, reference: Reference) -> Check:
    """Render conversations with every named template and compare the ids.

    A trim may lack words of the conversations, but no word of a template and no added token.

    Args:
        folder: The result.
        reference: What its tokenizer should be.
    """
    names = _templates(reference.folder.tokenizer)
    if not names:
        return Check("chat templates", True, "there are none")
    lost = [name or "the template" for name in names if name not in _templates(folder.tokenizer)]
    wrong: list[str] = []
    compared = 0
    for name in (name for name in names if name in _templates(folder.tokenizer)):
        before = [_render(reference.folder, name, chat) for chat in _chats("?", "!")]
        other = [_render(reference.folder, name, chat) for chat in _chats("one two", "three")]
        added = set(reference.folder.added.values())
        for chat, ids, twin in zip(_chats("?", "!"), before, other, strict=True):
            if ids is None:
                continue  # a template may refuse any conversation
            needed = {token for token in ids if token in added or ("tools" not in chat and token in set(twin or ()))}
            expected = reference.translate(ids)
            missing = [t for t in needed if reference.new(t) is None and not reference.may_lack(t)]
            compared += 1
            if missing or (expected is not None and not _equal(folder, reference, name, chat, expected)):
                text = reference.folder.tokenizer.convert_ids_to_tokens(missing)
                wrong.append(f"{name or 'the template'}{f' needs {text}' if missing else ''}")
    detail = f"{count_of(compared, 'conversation')} of {count_of(len(names), 'template')}"
    return check_empty("chat templates", "differ", [*lost, *dict.fromkeys(wrong)], detail)


def _equal(folder: Folder, reference: Reference, name: str, chat: Chat, expected: list[int]) -> bool:
    found = _render(folder, name, chat)
    bos = folder.tokenizer.bos_token_id
    if found is not None and not reference.added.isdisjoint(found):
        return True  # the words of the conversation are new tokens
    frames = [[], [bos]] if reference.bos_added else [[]]
    if any(found == [*frame, *expected] for frame in frames):
        return True
    text = None if reference.trim else _render(reference.folder, name, chat, tokenize=False)
    if text is None:
        return False
    by_file = [reference.translate(encode(text, False)) for encode in reference.folder.file_encoders]
    return any(ids is not None and found == [*frame, *ids] for ids in by_file for frame in frames)


def _templates(tokenizer: Any) -> list[str]:
    """The names of the templates of a tokenizer; "" for one without a name."""
    template = getattr(tokenizer, "chat_template", None)
    return sorted(template) if isinstance(template, dict) else [""] if template else []


def _render(folder: Folder, name: str, chat: Chat, *, tokenize: bool = True) -> Any:
    """The ids of a conversation, or its text; None where the template does not accept it."""
    try:
        found = folder.tokenizer.apply_chat_template(
            chat_template=name or None, return_dict=tokenize, tokenize=tokenize, **chat
        )
    except Exception:  # a template can refuse a role, or the lack of one, with any error
        return None
    return list(found["input_ids"]) if tokenize else found


def _chats(question: str, answer: str) -> Iterator[Chat]:
    """Conversations with and without a system, tools, documents and thinking."""
    user, assistant = {"role": "user", "content": question}, {"role": "assistant", "content": answer}
    system = {"role": "system", "content": answer}
    for turns, prompt in product(([user], [user, assistant, user], [system, user, assistant, user]), (False, True)):
        yield {"conversation": turns, "add_generation_prompt": prompt}
    for thinking in (False, True):
        yield {"conversation": [user], "add_generation_prompt": True, "enable_thinking": thinking}
    yield {"conversation": [user, {**assistant, "reasoning_content": question}, user]}
    yield {"conversation": [{"role": "user", "content": [{"type": "text", "text": question}, {"type": "image"}]}]}
    call = {"type": "function", "function": {"name": "f", "arguments": {"a": question}}}
    asks = {"role": "assistant", "content": "", "tool_calls": [call]}
    parameters = {"type": "object", "properties": {"a": {"type": "string", "description": question}}, "required": ["a"]}
    tool = {"type": "function", "function": {"name": "f", "description": answer, "parameters": parameters}}
    called: list[Any] = [user, asks, {"role": "tool", "name": "f", "content": answer}, assistant]
    for turns in ([user], called):
        yield {"conversation": turns, "tools": [tool], "add_generation_prompt": True}
    yield {"conversation": [user], "documents": [{"title": question, "text": answer}], "tools": None}
