"""Changes of a tokenizer.json, and what the tests of this folder share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tokswap.tokenizer.tokenizer import Tokenizer

LOSSLESS = ("byte-level", "sentencepiece")
AWKWARD = [
    "",
    " ",
    "  a",
    "a  ",
    "\n\n\t",
    "🙂👩‍👩‍👧",
    "日本語 テキスト",
    "é e\u0301",
    "\x00\x7f\u200b",
    "Ġ <0x41> ##a",
]
# ▁ is how SentencePiece writes a space, so a text cannot contain the character itself.
texts = st.text(st.characters(codec="utf-8", exclude_characters="▁"))


def spelled(tokenizer: Tokenizer, ids: list[int]) -> bytes:
    return b"".join(tokenizer.vocabulary.token_bytes[token] for token in ids)


def added(token: int, content: str, special: bool = False) -> dict[str, Any]:
    return {"id": token, "content": content, "special": special, "normalized": False} | dict.fromkeys(
        ("single_word", "lstrip", "rstrip"), False
    )


def add_token(token: int, content: str, special: bool = False) -> Callable[[dict[str, Any]], None]:
    return lambda spec: spec["added_tokens"].append(added(token, content, special))


def set_model(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda spec: spec["model"].update(changes)
