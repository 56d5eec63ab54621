"""Read the weights of Flax checkpoints with msgpack. JAX is not needed, and nothing in the file is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokswap.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

_ARRAY = 1
"""The msgpack extension type of an array."""
_LAST_NAMES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
_CHUNKED = "__msgpack_chunked_array__"


def flax_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of a Flax checkpoint under its published PyTorch name.

    Raises:
        InputError: bad-hypernet, missing-extra.
    """
    import torch

    for keys, value in _leaves(_unpack(path), ()):
        name = ".".join([*(key.removeprefix("layers_") for key in keys[:-1]), _LAST_NAMES.get(keys[-1], keys[-1])])
        name = name.replace("model.embeddings.lang_embedding.", "lang_embeddings.")
        array = value.T if keys[-1] == "kernel" else value
        yield name, torch.from_numpy(np.ascontiguousarray(array))


def _leaves(node: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    if isinstance(node, Mapping):
        for key, child in node.items():
            yield from _leaves(child, (*keys, str(key)))
    else:
        yield keys, node


def _unpack(path: Path) -> Any:
    """Read a file of flax.serialization: msgpack, with each array as an extension (shape, type name, bytes)."""
    try:
        import msgpack
    except ImportError as error:
        hint = "`pip install 'tokswap[hypernet]'`"
        raise InputError("missing-extra", "reading Flax checkpoints needs msgpack", hint, file=path) from error

    def array(code: int, data: bytes) -> np.ndarray:
        if code != _ARRAY:
            raise ValueError(f"extension {code}")
        return _array(*msgpack.unpackb(data, raw=False))

    try:
        tree = msgpack.unpackb(path.read_bytes(), ext_hook=array, raw=False, strict_map_key=False)
        if not isinstance(tree, dict):
            raise ValueError("no tree of parameters")
        return _join_chunks(tree)
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        message = f"this Flax file cannot be read: {error}"
        raise InputError("bad-hypernet", message, "download it again", file=path) from error


def _array(shape: Any, kind: str, content: bytes) -> np.ndarray:
    """Return an array as float32."""
    if kind == "bfloat16":  # the upper half of a float32
        values = (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif kind in ("float64", "float32", "float16"):
        values = np.frombuffer(content, np.dtype(kind).newbyteorder("<")).astype(np.float32)
    else:
        raise ValueError(f"an array of type {kind}")
    return values.reshape(shape)


def _join_chunks(node: Any) -> Any:
    """Join large arrays, which Flax writes in chunks."""
    if not isinstance(node, dict):
        if not isinstance(node, np.ndarray):
            raise ValueError(f"{type(node).__name__} where an array should be")
        return node
    if _CHUNKED not in node:
        return {key: _join_chunks(child) for key, child in node.items()}
    chunks = [node["chunks"][str(n)] for n in range(len(node["chunks"]))]
    return np.concatenate(chunks).reshape([node["shape"][str(n)] for n in range(len(node["shape"]))])
