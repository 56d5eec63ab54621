"""The tokenizer of a GGUF file as the files of a checkpoint, with which transformers tokenizes as llama.cpp does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tokswap.storage.gguf.keys import ROLE_KEYS, TEMPLATE_KEY
from tokswap.storage.gguf.models import Model, build_model
from tokswap.storage.gguf.pieces import Pieces, read_pieces
from tokswap.storage.json_files import json_bytes


def tokenizer_files(metadata: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files of a tokenizer by name: tokenizer.json, tokenizer_config.json and chat templates.

    Args:
        metadata: The keys of the file.

    Raises:
        InputError: unsupported-tokenizer.
        ValueError, TypeError, KeyError, IndexError: for a file whose keys are missing or do not fit together.
    """
    pieces = read_pieces(metadata)
    model = build_model(metadata, pieces)
    ids = {**model.roles, **_named_roles(metadata)}
    roles = {role: pieces.texts[number] for role, number in ids.items() if 0 <= number < len(pieces.texts)}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": pieces.added(str(metadata.get("general.name", "")), metadata.get("tokenizer.ggml.pre")),
        **model.parts,
        "post_processor": _frame(metadata, model, roles, pieces),
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **{f"{role}_token": token for role, token in roles.items()},
    }
    length = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    if length:
        config["model_max_length"] = int(length)
    files = {"tokenizer.json": json_bytes(tokenizer, indent=None), "tokenizer_config.json": json_bytes(config)}
    return {**files, **_templates(metadata)}


def _named_roles(metadata: Mapping[str, Any]) -> dict[str, int]:
    keys = {role: f"tokenizer.ggml.{name}_token_id" for role, name in ROLE_KEYS.items()}
    return {role: int(metadata[key]) for role, key in keys.items() if key in metadata}


def _frame(metadata: Mapping[str, Any], model: Model, roles: Mapping[str, str], pieces: Pieces) -> dict[str, Any]:
    """Return the post-processor that adds bos and eos. For Gemma 4's kind llama.cpp adds bos whatever the file says."""
    forced = {"bos"} if metadata["tokenizer.ggml.model"] == "gemma4" else set()
    adds = {
        role: roles[role]
        for role in ("bos", "eos")
        if role in roles and (role in forced or metadata.get(f"tokenizer.ggml.add_{role}_token", role in model.adds))
    }

    def framed(sequence: str, type_id: int) -> list[dict[str, Any]]:
        special = {role: [{"SpecialToken": {"id": token, "type_id": type_id}}] for role, token in adds.items()}
        middle = {"Sequence": {"id": sequence, "type_id": type_id}}
        return [*special.get("bos", []), middle, *special.get("eos", [])]

    ids = pieces.ids
    return {
        "type": "TemplateProcessing",
        "single": framed("A", 0),
        "pair": [*framed("A", 0), *framed("B", 1)],
        "special_tokens": {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in adds.values()},
    }


def _templates(metadata: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the chat templates as files. A name becomes part of a path, so other than plain names are left out."""
    files = {}
    if template := metadata.get(TEMPLATE_KEY):
        files["chat_template.jinja"] = template.encode()
    for key, template in metadata.items():
        name = key.removeprefix(f"{TEMPLATE_KEY}.")
        if name != key and re.fullmatch(r"[A-Za-z0-9_-]+", name):
            files[f"additional_chat_templates/{name}.jinja"] = template.encode()
    return files
