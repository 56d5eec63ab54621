"""Random damage to files. With the `random.Random` of hypothesis, hypothesis shrinks what it finds."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

STRANGE: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    3,
    7,
    255,
    300,
    1 << 31,
    1 << 63,
    1 << 64,
    -(1 << 63),
    10**25,
    1.5,
    -0.0,
    1e308,
    float("inf"),
    float("nan"),
    "",
    " ",
    "a",
    "0",
    "-1",
    "\x00",
    "\ud800",
    "é",
    "▁",
    "Ġ",
    "##",
    "<0x41>",
    "<unk>",
    "../secret.safetensors",
    "/etc/passwd",
    "secret.safetensors",
    "C:\\x",
    "a" * 3000,
    "F32",
    "BF16",
    "I4",
    "BPE",
    "Unigram",
    "WordPiece",
    "ByteLevel",
    "Metaspace",
    "TemplateProcessing",
    "Sequence",
    "__import__('os')",
    "!!python/object",
    [],
    [[]],
    [None],
    [0],
    [0, 0],
    [-1, 5],
    [0, 1 << 70],
    ["a"],
    [["a", "b"]],
    {},
    {"a": None},
    {"type": "Sequence"},
    {"": {}},
    {"content": 3},
    {"type": "Metaspace"},
    [{}] * 3,
    [[[]]] * 2,
)
"""Values that take the place of others in damaged files."""


def deep(levels: int, close: bool = True) -> str:
    """Return JSON that is nested this deep."""
    return "[" * levels + ("]" * levels if close else "")


def damage_json(value: Any, random: Random) -> Any:
    """Return a copy of parsed JSON with one to three changes, most of them near the top."""
    value = copy.deepcopy(value)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        value = _change(value, random)
    return value


def _change(value: Any, random: Random) -> Any:
    parent, key = None, None
    node = value
    while isinstance(node, (dict, list)) and node and random.random() < 0.8:
        parent, key = node, random.choice(list(node) if isinstance(node, dict) else range(len(node)))
        node = parent[key]
    if parent is None:
        if isinstance(value, dict) and value and random.random() < 0.9:
            parent, key = value, random.choice(list(value))
        else:
            return copy.deepcopy(random.choice(STRANGE))
    action = random.randrange(8)
    if action <= 2:
        parent[key] = copy.deepcopy(random.choice(STRANGE))
    elif action == 3:
        del parent[key]
    elif action == 4:
        parent[key] = copy.deepcopy(_somewhere(value, random))
    elif action == 5 and isinstance(parent[key], (int, float)) and not isinstance(parent[key], bool):
        parent[key] = parent[key] + random.choice((-1, 1, 1000, -1000, 0.5, 1 << 40))
    elif action == 6 and isinstance(parent, dict):
        parent[str(random.choice(("x", "", "type", "vocab_size", "../x", "pad_token_id", key)))] = parent.pop(key)
    elif action == 7 and isinstance(parent[key], str):
        text = parent[key]
        at = random.randrange(len(text) + 1)
        parent[key] = text[:at] + random.choice(("x", "\x00", "/", "..", "\ud800", "ü", "")) + text[at + 1 :]
    else:
        other = _somewhere(value, random)
        if isinstance(parent, list):
            parent.insert(random.randrange(len(parent) + 1), copy.deepcopy(other))
        else:
            parent[f"new{random.randrange(3)}"] = copy.deepcopy(other)
    return value


def _somewhere(value: Any, random: Random) -> Any:
    while isinstance(value, (dict, list)) and value and random.random() < 0.7:
        value = random.choice(list(value.values()) if isinstance(value, dict) else value)
    return value


def damage_bytes(data: bytes, random: Random, spread: int | None = None) -> bytes:
    """Return bytes with a few changes: some are flipped, removed, added or doubled, or the end is missing.

    Args:
        data: The bytes.
        random: Where the changes come from.
        spread: Change only this many bytes at the start; None for all.
    """
    for _ in range(random.choice((1, 1, 2, 4))):
        end = min(len(data), spread or len(data))
        at = random.randrange(end + 1)
        size = random.choice((1, 1, 2, 4, 8, 64))
        action = random.randrange(7)
        if action <= 1 and at < len(data):
            data = (
                data[:at]
                + bytes([random.choice((0, 0xFF, 0x80, 0x7F, data[at] ^ (1 << random.randrange(8))))])
                + data[at + 1 :]
            )
        elif action == 2:
            data = data[:at] + data[at + size :]
        elif action == 3:
            data = data[:at] + random.choice((b"\x00", b"\xff", b"{", b"[", b'"', b"9" * 20, b"\n", b"\\u")) + data[at:]
        elif action == 4:
            data = data[:at] + data[at : at + size] + data[at:]
        elif action == 5:
            data = (
                data[:at]
                + random.choice((b"\xff" * 8, b"\x00" * 8, b"\xff\xff\xff\x7f\x00\x00\x00\x00", b"\x01" + b"\x00" * 7))
                + data[at + 8 :]
            )
        elif random.random() < 0.3:
            data = data[:at]
    return data


def json_bytes(value: Any, random: Random) -> bytes:
    """Return parsed JSON as a damaged file, sometimes one that is not JSON any more."""
    kind = random.random()
    if kind < 0.02:
        levels = random.choice((50, 500, 3000, 200_000))
        return (
            deep(levels, random.random() < 0.5).encode()
            if random.random() < 0.5
            else (b'{"a": ' * levels + b"1" + b"}" * levels)
        )
    text = json.dumps(damage_json(value, random) if kind < 0.85 else value)
    data = text.encode("utf-16") if kind > 0.995 else text.encode()
    return damage_bytes(data, random) if kind >= 0.85 else data
