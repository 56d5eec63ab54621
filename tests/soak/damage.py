"""How files are damaged: each function takes the bytes of a good file and returns those of a damaged one."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np

from soak.mutate import damage_bytes, damage_json, json_bytes

Damage = Callable[[bytes, Random], bytes]


def as_json(data: bytes, random: Random) -> bytes:
    return json_bytes(json.loads(data), random)


def as_header(data: bytes, random: Random) -> bytes:
    """Damage the header of a safetensors file, most often with the right size in front of it."""
    length = int.from_bytes(data[:8], "little")
    if random.random() < 0.7:
        text = json_bytes(json.loads(data[8 : 8 + length]), random)
        return len(text).to_bytes(8, "little") + text + data[8 + length :]
    return damage_bytes(data, random, spread=8 + length)


def as_lines(data: bytes, random: Random) -> bytes:
    """Damage one line of a JSON Lines file, or its bytes."""
    if random.random() < 0.4:
        return damage_bytes(data, random)
    lines = data.splitlines()
    at = random.randrange(len(lines))
    lines[at] = json_bytes(json.loads(lines[at]), random)
    return b"\n".join(lines)


def as_gzip(inner: Damage) -> Damage:
    def damage(data: bytes, random: Random) -> bytes:
        if random.random() < 0.5:
            return damage_bytes(data, random)
        return gzip.compress(inner(gzip.decompress(data), random), 1)

    return damage


def as_npz(data: bytes, random: Random) -> bytes:
    """Damage the bytes of a .npz, or make one from arrays that do not fit."""
    if random.random() < 0.5:
        return damage_bytes(data, random)
    strange: list[Any] = [
        np.zeros((3, 2), np.float32),
        np.zeros(3, "<U2"),
        np.zeros((0, 2)),
        np.zeros(()),
        np.zeros((2, 2, 2)),
        np.array([b"a"]),
        np.full((3, 2), np.nan),
        np.zeros(3, [("a", "f4")]),
        np.zeros(3, "M8[s]"),
        np.zeros((3, 2), np.complex64),
        np.array([None, {}, "x"], object),
        np.zeros((3, 2), "<U3"),
        np.full((3, 2), 1e300),
        np.zeros((3, 0)),
    ]
    names = ["words", "vectors"] if random.random() < 0.8 else ["words", "rows"]
    out = io.BytesIO()
    np.savez(out, **{name: random.choice(strange) for name in names})
    return out.getvalue() if random.random() < 0.7 else _huge(out.getvalue(), random)


def _huge(data: bytes, random: Random) -> bytes:
    """Let the header of an array claim an impossible size."""
    return data.replace(b"(3,", random.choice((b"(9,", b"(0,", b"(-1"))).replace(
        b"'shape': (3", b"'shape': (" + b"9" * random.choice((1, 9, 18))
    )


def as_msgpack(data: bytes, random: Random) -> bytes:
    import msgpack

    if random.random() < 0.4:
        return damage_bytes(data, random)
    tree = msgpack.unpackb(
        data, ext_hook=lambda code, inner: ["ext", code, list(msgpack.unpackb(inner))], strict_map_key=False
    )

    def pack(node: Any) -> Any:
        if isinstance(node, list) and len(node) == 3 and node[0] == "ext":
            try:
                return msgpack.ExtType(node[1], msgpack.packb(node[2]))
            except (TypeError, ValueError, OverflowError):
                return None
        if isinstance(node, dict):
            return {key: pack(child) for key, child in node.items()}
        return [pack(child) for child in node] if isinstance(node, list) else node

    try:
        return bytes(msgpack.packb(pack(damage_json(tree, random))))
    except (TypeError, ValueError, OverflowError, UnicodeEncodeError):
        return damage_bytes(data, random)


def as_gguf(data: bytes, random: Random) -> bytes:
    return damage_bytes(data, random, spread=random.choice((24, 400, 7000, len(data))))
