"""Describe a tokenizer as plain data: family, sizes, roles, and how it treats digits and white space."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import ROLES, Kind

_NUMBERS = ("1234567890", "90817263", "4050607")


def describe_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """Describe a tokenizer.

    Returns:
        Plain data: "family", "ids", "kinds" (ids of each kind), "roles" (id and token of each role), "specials",
        "begins_with_bos", "chat_template" (whether there is one), "chat_templates" (their names), "digits" (see
        `digit_scheme`), and "whitespace" (see `whitespace_scheme`).
    """
    vocabulary, templates = tokenizer.vocabulary, list(tokenizer.chat_templates)
    return {
        "family": tokenizer.family,
        "ids": len(vocabulary),
        "kinds": {kind.name.lower(): int(np.count_nonzero(vocabulary.kind == kind)) for kind in Kind},
        "roles": {
            role: {"id": vocabulary.roles[role], "token": vocabulary.text[vocabulary.roles[role]]}
            for role in ROLES
            if role in vocabulary.roles
        },
        "specials": [vocabulary.text[i] for i in np.flatnonzero(vocabulary.kind == Kind.SPECIAL).tolist()],
        "begins_with_bos": tokenizer.adds_bos,
        "chat_template": bool(templates),
        "chat_templates": templates,
        "digits": digit_scheme(tokenizer),
        "whitespace": whitespace_scheme(tokenizer),
    }


def digit_scheme(tokenizer: Tokenizer) -> str:
    """Describe how a number is tokenized.

    Returns:
        "single digits", "threes from the left", "threes from the right" or "free".
    """
    token_bytes, schemes = tokenizer.vocabulary.token_bytes, set()
    numbers = tokenizer.tokenize_bytes([f"x {number}".encode() for number in _NUMBERS])
    for number, ids in zip(_NUMBERS, numbers, strict=True):
        lengths = [len(text) for text in (token_bytes[i].strip() for i in ids) if text.isdigit()]
        count, rest = divmod(len(number), 3)
        if all(length == 1 for length in lengths):
            schemes.add("single digits")
        elif lengths == [3] * count + [rest] * (rest > 0):
            schemes.add("threes from the left")
        elif lengths == [rest] * (rest > 0) + [3] * count:
            schemes.add("threes from the right")
        else:
            schemes.add("free")
    return schemes.pop() if len(schemes) == 1 else "free"


def whitespace_scheme(tokenizer: Tokenizer) -> dict[str, Any]:
    """Describe the white-space tokens of a tokenizer.

    Returns:
        "longest_spaces", "longest_newlines", "longest_tabs": bytes of the longest token of each. "newline_with_indent":
        whether a token begins with a line break and ends with an indent.
    """
    vocabulary = tokenizer.vocabulary
    pieces = [vocabulary.token_bytes[i] for i in np.flatnonzero(vocabulary.kind == Kind.NORMAL).tolist()]
    blank = [piece for piece in pieces if piece and not piece.strip(b" \t\r\n")]
    return {
        "longest_spaces": max((len(s) for s in blank if not s.strip(b" ")), default=0),
        "longest_newlines": max((len(s) for s in blank if not s.strip(b"\n")), default=0),
        "longest_tabs": max((len(s) for s in blank if not s.strip(b"\t")), default=0),
        "newline_with_indent": any(s.startswith(b"\n") and s.endswith((b" ", b"\t")) for s in blank),
    }
