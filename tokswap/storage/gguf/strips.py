"""Which special tokens take white space with them: llama.cpp has no key for it, and knows it by names."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

_PHI3 = re.compile("(phi)-?(3)", re.IGNORECASE)
_PHI3_KEEPS = {"<unk>", "<s>", "<|endoftext|>"}
"""Special tokens of Phi-3 that take no white space. llama.cpp does not load a Phi-3 without them and `</s>`."""
_MODERN_BERT = re.compile("(modern)-(bert)", re.IGNORECASE)
_MASKED = {"jina-v2-de", "jina-v2-es", "jina-v2-code"}
"""Pre-tokenizers with which `<mask>` takes the white space before it."""


def stripping_tokens(name: str, pre: str | None, special: Collection[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the special tokens that take the white space before them in llama.cpp, and those that take it after them.

    Args:
        name: `general.name` of the file.
        pre: Name of its pre-tokenizer.
        special: Its special and user-defined tokens.
    """
    before: set[str] = set()
    after: set[str] = set()
    if pre in _MASKED:
        before = {"<mask>"}
    elif _PHI3.search(name):
        after = set(special) - _PHI3_KEEPS
    elif _MODERN_BERT.search(name):
        before = {"[MASK]"}
    return frozenset(before.intersection(special)), frozenset(after)


def telling_name(name: str, pre: str | None, added: Sequence[Mapping[str, Any]], known: Collection[str]) -> str:
    """Return a name for a file with which special tokens take the white space that they take in a tokenizer.

    Where no name says it, llama.cpp takes none, and the name is one that says nothing.

    Args:
        name: The wanted name.
        pre: Name of the pre-tokenizer.
        added: The `added_tokens` of the tokenizer.json.
        known: All tokens.
    """
    wanted = tuple(frozenset(entry["content"] for entry in added if entry.get(flag)) for flag in ("lstrip", "rstrip"))
    special = [entry["content"] for entry in added]
    plain = _MODERN_BERT.sub(r"\1 \2", _PHI3.sub(r"\1 \2", name))
    names = [plain, f"{plain} modern-bert"]
    if _PHI3_KEEPS | {"</s>"} <= set(known):
        names.append(name if _PHI3.search(name) else f"{plain} phi-3")
    return next((one for one in names if stripping_tokens(one, pre, special) == wanted), plain)
