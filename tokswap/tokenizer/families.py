"""How a tokenizer.json spells text: its family, and what each of its ids stands for. Parsed JSON in, Vocabulary out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.errors import InputError
from tokswap.tokenizer.post_processor import nodes
from tokswap.tokenizer.schema import MOST_IDS
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

_BRACKETS = ("<", "[")
"""How reserved slots and byte pieces begin."""
BYTE_LEVEL, SENTENCEPIECE, UNIGRAM, WORDPIECE = "byte-level BPE", "SentencePiece BPE", "Unigram", "WordPiece"


def _model_type(model: Mapping[str, Any]) -> str:
    if "type" in model:
        return str(model["type"])
    if "merges" in model:
        return "BPE"
    return "Unigram" if isinstance(model.get("vocab"), list) else "WordPiece"


def family_of(spec: Mapping[str, Any], path: Path) -> str:
    """Return the family of a tokenizer.json. Raises InputError unsupported-tokenizer."""
    model = spec["model"]
    model_type = _model_type(model)
    if model_type in ("Unigram", "WordPiece"):
        return UNIGRAM if model_type == "Unigram" else WORDPIECE
    parts = [*nodes(spec.get("normalizer")), *nodes(spec.get("pre_tokenizer")), *nodes(spec.get("decoder"))]
    types = {part.get("type") for part in parts}
    marks_spaces = "Metaspace" in types or any("▁" in json.dumps(part, ensure_ascii=False) for part in parts)
    if model_type == "BPE" and not model.get("end_of_word_suffix") and not model.get("continuing_subword_prefix"):
        if "ByteLevel" in types:
            return BYTE_LEVEL
        if marks_spaces or model.get("byte_fallback"):
            return SENTENCEPIECE
    raise InputError(
        "unsupported-tokenizer",
        f"tokswap does not know how this {model_type} tokenizer spells text",
        "it takes byte-level BPE, SentencePiece BPE, Unigram and WordPiece tokenizers",
        file=path,
    )


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


def read_vocabulary(spec: Mapping[str, Any], config: Mapping[str, Any], family: str, path: Path) -> Vocabulary:
    """Return every id of a tokenizer.json with its canonical bytes and kind.

    config: the parsed tokenizer_config.json, for the roles. Raises InputError: bad-tokenizer, duplicate-ids.
    """
    listed = list(spec.get("added_tokens") or [])
    model = _model_tokens(spec, path)
    try:
        added = {int(entry["id"]): (str(entry["content"]), bool(entry.get("special"))) for entry in listed}
    except (TypeError, ValueError, KeyError) as error:
        raise InputError("bad-tokenizer", "the tokenizer's `added_tokens` are damaged", file=path) from error
    _check_ids(model, listed, path)
    size = 1 + max((token for token, _ in [*model, *added.items()]), default=-1)
    text, surface, kind = [""] * size, [b""] * size, bytearray([Kind.UNUSED]) * size
    spell = spelling_of(family, spec)
    has_byte_pieces = family in (SENTENCEPIECE, UNIGRAM)
    normal, byte = int(Kind.NORMAL), int(Kind.BYTE)
    for token, content in model:
        text[token] = content
        if content[:1] not in _BRACKETS:  # nearly all, so that they are worth a way of their own
            surface[token], kind[token] = spell(content), normal
        elif is_reserved(content):
            surface[token] = content.encode("utf-8", "surrogatepass")
        else:
            surface[token] = spell(content)
            kind[token] = byte if has_byte_pieces and is_byte_piece(content) else normal
    in_model = {content for _, content in model}
    for token, (content, special) in added.items():
        raw = content.encode("utf-8", "surrogatepass")
        if special or content not in in_model:
            text[token], surface[token] = content, raw
        if special or is_reserved(content):
            kind[token] = Kind.UNUSED if is_reserved(content) else Kind.SPECIAL
            surface[token] = raw
        elif text[token] and kind[token] != Kind.BYTE:  # no text: the model has this token under another id
            kind[token] = Kind.NORMAL
    roles = _roles(config, spec, {content: token for token, content in enumerate(text) if content})
    for role, token in roles.items():
        if not 0 <= token < size:
            raise InputError(
                "bad-tokenizer", f"the tokenizer's {role} token has the id {token}, past its last", file=path
            )
        kind[token], surface[token] = Kind.SPECIAL, text[token].encode("utf-8", "surrogatepass")
    return Vocabulary(text, surface, np.frombuffer(bytes(kind), np.uint8), roles)


def spelling_of(family: str, spec: Mapping[str, Any]) -> Callable[[str], bytes]:
    """Return the function that gives the canonical bytes of a text token of a family."""
    prefix = spec["model"].get("continuing_subword_prefix") or ""
    functions: dict[str, Callable[[str], bytes]] = {
        BYTE_LEVEL: byte_level_bytes,
        SENTENCEPIECE: sentencepiece_bytes,
        UNIGRAM: sentencepiece_bytes,
        WORDPIECE: lambda token: wordpiece_bytes(token, prefix),
    }
    return functions[family]


def _check_ids(model: list[tuple[int, str]], added: list[dict[str, Any]], path: Path) -> None:
    """Refuse ids that two different tokens claim, and ids that no table could have."""
    owner = dict(model)
    repeats = model if len(owner) < len(model) else []
    for token, content in [*repeats, *((int(entry["id"]), str(entry["content"])) for entry in added)]:
        if owner.setdefault(token, content) != content:
            raise InputError(
                "duplicate-ids",
                f"two tokens of this tokenizer share the id {token}: {owner[token]!r} and {content!r}",
                "a row can belong to one token only; give one of them an id of its own in tokenizer.json",
                file=path,
            )
    for token in (min(owner), max(owner)) if owner else ():
        if not 0 <= token < MOST_IDS:
            raise InputError("bad-tokenizer", f"token {owner[token]!r} has the impossible id {token}", file=path)
    if len({content for _, content in model}) < len(model):
        ((content, _),) = Counter(content for _, content in model).most_common(1)
        raise InputError("duplicate-ids", f"the token {content!r} stands twice in the vocabulary", file=path)


def _roles(config: Mapping[str, Any], spec: Mapping[str, Any], ids: Mapping[str, int]) -> dict[str, int]:
    """Read the roles from tokenizer_config.json, and unk from the model where the config names none."""
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
