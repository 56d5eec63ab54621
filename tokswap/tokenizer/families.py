"""Families: how a tokenizer.json spells text, and the vocabulary that it defines. Parsed JSON in, `Vocabulary` out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.errors import InputError
from tokswap.options.groups import MOST_IDS
from tokswap.tokenizer.apart import apart_tokens
from tokswap.tokenizer.post_processor import nodes
from tokswap.tokenizer.schema import model_type
from tokswap.tokenizer.unproduced import unproduced_tokens
from tokswap.tokenizer.vocabulary import (
    ROLES,
    Kind,
    Vocabulary,
    byte_level_bytes,
    is_byte_piece,
    is_reserved,
    sentencepiece_bytes,
    wordpiece_bytes,
)

BYTE_LEVEL, SENTENCEPIECE, UNIGRAM, WORDPIECE = "byte-level BPE", "SentencePiece BPE", "Unigram", "WordPiece"
_BRACKETS = ("<", "[")
"""First characters of reserved slots and byte pieces."""


def family_of(spec: Mapping[str, Any], path: Path) -> str:
    """Return the family of a tokenizer.json.

    Args:
        spec: The parsed tokenizer.json.
        path: Where it is from, for error messages.

    Returns:
        `BYTE_LEVEL`, `SENTENCEPIECE`, `UNIGRAM` or `WORDPIECE`.

    Raises:
        InputError: unsupported-tokenizer.
    """
    model = spec["model"]
    kind = model_type(model)
    if kind in ("Unigram", "WordPiece"):
        return UNIGRAM if kind == "Unigram" else WORDPIECE
    parts = [*nodes(spec.get("normalizer")), *nodes(spec.get("pre_tokenizer")), *nodes(spec.get("decoder"))]
    types = {part.get("type") for part in parts}
    marks_spaces = "Metaspace" in types or any("▁" in json.dumps(part, ensure_ascii=False) for part in parts)
    if kind == "BPE" and not model.get("end_of_word_suffix") and not model.get("continuing_subword_prefix"):
        if "ByteLevel" in types:
            return BYTE_LEVEL
        if marks_spaces or model.get("byte_fallback"):
            return SENTENCEPIECE
    raise InputError(
        "unsupported-tokenizer",
        f"tokswap does not know how this {kind} tokenizer spells text",
        "use a byte-level BPE, SentencePiece BPE, Unigram or WordPiece tokenizer",
        file=path,
    )


def spelling_of(family: str, spec: Mapping[str, Any]) -> Callable[[str], bytes]:
    """Return the function that maps a text token of a family to its canonical bytes."""
    prefix = spec["model"].get("continuing_subword_prefix") or ""
    functions: dict[str, Callable[[str], bytes]] = {
        BYTE_LEVEL: byte_level_bytes,
        SENTENCEPIECE: sentencepiece_bytes,
        UNIGRAM: sentencepiece_bytes,
        WORDPIECE: lambda token: wordpiece_bytes(token, prefix),
    }
    return functions[family]


def read_vocabulary(spec: Mapping[str, Any], config: Mapping[str, Any], family: str, path: Path) -> Vocabulary:
    """Return every id of a tokenizer.json with its token bytes and its kind.

    Args:
        spec: The parsed tokenizer.json.
        config: The parsed tokenizer_config.json, for the roles.
        family: The family of the tokenizer.
        path: Where it is from, for error messages.

    Raises:
        InputError: bad-tokenizer, duplicate-ids.
    """
    listed = list(spec.get("added_tokens") or [])
    model = _model_tokens(spec, path)
    try:
        added = {int(entry["id"]): (str(entry["content"]), bool(entry.get("special"))) for entry in listed}
    except (TypeError, ValueError, KeyError) as error:
        raise InputError("bad-tokenizer", "the tokenizer's `added_tokens` are damaged", file=path) from error
    _check_ids(model, listed, path)
    size = 1 + max((token for token, _ in [*model, *added.items()]), default=-1)
    text, token_bytes, kind = [""] * size, [b""] * size, bytearray([Kind.UNUSED]) * size
    spell = spelling_of(family, spec)
    has_byte_pieces = family in (SENTENCEPIECE, UNIGRAM)
    normal, byte = int(Kind.NORMAL), int(Kind.BYTE)
    for token, content in model:
        text[token] = content
        if content[:1] not in _BRACKETS:  # nearly all tokens, so this path is short
            token_bytes[token], kind[token] = spell(content), normal
        elif is_reserved(content):
            token_bytes[token] = content.encode("utf-8", "surrogatepass")
        else:
            token_bytes[token] = spell(content)
            kind[token] = byte if has_byte_pieces and is_byte_piece(content) else normal
    in_model = {content for _, content in model}
    for token, (content, special) in added.items():
        raw = content.encode("utf-8", "surrogatepass")
        if special or content not in in_model:
            text[token], token_bytes[token] = content, raw
        if special or is_reserved(content):
            kind[token] = Kind.UNUSED if is_reserved(content) else Kind.SPECIAL
            token_bytes[token] = raw
        elif text[token] and kind[token] != Kind.BYTE:  # without a text, the model has this token under another id
            kind[token] = Kind.NORMAL
    roles = _roles(config, spec, {content: token for token, content in enumerate(text) if content})
    for role, token in roles.items():
        if not 0 <= token < size:
            message = f"the tokenizer's {role} token has the id {token}, past the last id"
            raise InputError("bad-tokenizer", message, file=path)
        kind[token], token_bytes[token] = Kind.SPECIAL, text[token].encode("utf-8", "surrogatepass")
    found = Vocabulary(text, token_bytes, kind=np.frombuffer(bytes(kind), np.uint8), roles=roles)
    unproduced = unproduced_tokens(spec, found, path, marks_spaces=has_byte_pieces)
    apart, more = apart_tokens(spec, found, path) if family == WORDPIECE else (set(), set())
    return replace(found, unproduced=frozenset(unproduced | more), apart=frozenset(apart))


def _model_tokens(spec: Mapping[str, Any], path: Path) -> list[tuple[int, str]]:
    vocab = spec["model"].get("vocab")
    try:
        if isinstance(vocab, dict):
            return [(int(token), text) for text, token in vocab.items()]
        if isinstance(vocab, list):
            return [(token, str(entry[0])) for token, entry in enumerate(vocab)]
    except (TypeError, ValueError, IndexError, KeyError):
        pass
    raise InputError("bad-tokenizer", "the tokenizer's `model.vocab` is damaged", file=path)


def _check_ids(model: list[tuple[int, str]], added: list[dict[str, Any]], path: Path) -> None:
    """Refuse an id of two tokens, a token with two ids, and ids that no embedding matrix could have."""
    owner = dict(model)
    repeats = model if len(owner) < len(model) else []
    for token, content in [*repeats, *((int(entry["id"]), str(entry["content"])) for entry in added)]:
        if owner.setdefault(token, content) != content:
            raise InputError(
                "duplicate-ids",
                f"two tokens of this tokenizer share the id {token}: {owner[token]!r} and {content!r}",
                "give one of them an id of its own in tokenizer.json",
                file=path,
            )
    for token in (min(owner), max(owner)) if owner else ():
        if not 0 <= token < MOST_IDS:
            raise InputError("bad-tokenizer", f"token {owner[token]!r} has the impossible id {token}", file=path)
    if len({content for _, content in model}) < len(model):
        ((content, _),) = Counter(content for _, content in model).most_common(1)
        raise InputError("duplicate-ids", f"the token {content!r} occurs twice in the vocabulary", file=path)


def _roles(config: Mapping[str, Any], spec: Mapping[str, Any], ids: Mapping[str, int]) -> dict[str, int]:
    """Read the roles from tokenizer_config.json, and unk from the model if the config does not name it."""
    roles: dict[str, int] = {}
    for role in ROLES:
        entry = config.get(f"{role}_token")
        content = entry.get("content") if isinstance(entry, dict) else entry
        if isinstance(content, str) and content in ids:
            roles[role] = ids[content]
    model = spec["model"]
    if "unk" not in roles and isinstance(model.get("unk_token"), str) and model["unk_token"] in ids:
        roles["unk"] = ids[model["unk_token"]]
    if "unk" not in roles and isinstance(model.get("unk_id"), int):
        roles["unk"] = model["unk_id"]
    return roles
