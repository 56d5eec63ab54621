"""What a checkpoint or a tokenizer is, as plain data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.checkpoint import has_weights, open_checkpoint
from tokswap.tokenizer import Tokenizer, read_tokenizer
from tokswap.vocab import ROLES, Kind


def inspect(path: Path) -> dict[str, Any]:
    """Describe a model folder, a tokenizer folder or a tokenizer.json, without reading a weight.

    Keys: tokenizer, and for a model also model and tables.
    """
    result: dict[str, Any] = {"path": str(path)}
    if path.is_dir() and has_weights(path):
        checkpoint = open_checkpoint(path)
        architectures = checkpoint.config.get("architectures") or [checkpoint.config.get("model_type", "unknown")]
        result["model"] = {
            "architecture": architectures[0],
            "parameters": sum(int(np.prod(info.shape)) for info in checkpoint.tensors.values()),
            "bytes": checkpoint.nbytes,
            "shards": len(checkpoint.shards),
            "tied": checkpoint.tied,
        }
        tokenizer = read_tokenizer(path)
        tables = [asdict(table) | {"rows": table.rows, "width": table.width} for table in checkpoint.tables]
        result["tables"] = [
            table | {"padding": table["rows"] - len(tokenizer.vocabulary)} for table in tables
        ]  # fmt: skip
    else:
        tokenizer = read_tokenizer(path)
    result["tokenizer"] = describe_tokenizer(tokenizer)
    return result


def describe_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """Describe a tokenizer: family, ids by kind, roles, how it cuts numbers and spaces."""
    vocabulary = tokenizer.vocabulary
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
        "chat_template": tokenizer.chat_template is not None,
        "digits": digit_scheme(tokenizer),
        "whitespace": whitespace_scheme(tokenizer),
    }


def digit_scheme(tokenizer: Tokenizer) -> str:
    """Say how a number is cut: "single digits", "threes from the left", "threes from the right" or "free"."""
    schemes = set()
    numbers = ("1234567890", "90817263", "4050607")
    for number, cut in zip(numbers, tokenizer.segment([f"x {number}".encode() for number in numbers]), strict=True):
        lengths = [len(text) for text in (tokenizer.vocabulary.surface[i].strip() for i in cut) if text.isdigit()]
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
    """Say what the vocabulary has for white space: longest runs, and whether newline and indent share a token."""
    vocabulary = tokenizer.vocabulary
    surfaces = [vocabulary.surface[i] for i in np.flatnonzero(vocabulary.kind == Kind.NORMAL).tolist()]
    blank = [surface for surface in surfaces if surface and not surface.strip(b" \t\r\n")]
    return {
        "longest_spaces": max((len(s) for s in blank if not s.strip(b" ")), default=0),
        "longest_newlines": max((len(s) for s in blank if not s.strip(b"\n")), default=0),
        "longest_tabs": max((len(s) for s in blank if not s.strip(b"\t")), default=0),
        "newline_with_indent": any(s.startswith(b"\n") and s.endswith((b" ", b"\t")) for s in blank),
    }
