"""A checkpoint on disk: safetensors headers, configs and the vocabulary tables. Never loads a whole model.

File format: https://huggingface.co/docs/safetensors (8 bytes of header length, a JSON header, then the tensors).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.checkpoint.matrices import VocabMatrix, find_matrices
from tokswap.checkpoint.schema import check_config
from tokswap.errors import InputError
from tokswap.storage.json_files import read_json
from tokswap.storage.links import check_links

DTYPE_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "F8_E4M3FNUZ": 1,
    "F8_E5M2FNUZ": 1,
    "C64": 8,
}
"""Bytes an element, by safetensors dtype name. Packed sub-byte types are carried too: see `TensorInfo.parse`."""

_SUB_BYTE = ("F4", "F6_E2M3", "F6_E3M2", "I4", "U4")
_MOST_HEADER = 100 << 20
_BLOCK = 64 << 20


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: where its bytes are. start and end count from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    start: int
    end: int

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.end - self.start


@dataclass(frozen=True)
class Shard:
    """One safetensors file: its tensors in the order of their bytes, and the `__metadata__` of its header."""

    path: Path
    tensors: tuple[TensorInfo, ...]
    metadata: Mapping[str, str] | None
    size: int


@dataclass(frozen=True)
class Checkpoint:
    """A model folder with safetensors weights.

    config and generation_config: parsed, the latter {} without one. index: the parsed index file, or None.
    """

    folder: Path
    config: Mapping[str, Any]
    generation_config: Mapping[str, Any]
    shards: tuple[Shard, ...]
    index: Mapping[str, Any] | None = None
    tensors: Mapping[str, TensorInfo] = field(default_factory=dict)

    @cached_property
    def matrices(self) -> tuple[VocabMatrix, ...]:
        """The vocabulary tables. Raises InputError where a vocabulary-sized tensor is not understood."""
        shapes = {name: (info.dtype, info.shape) for name, info in self.tensors.items()}
        return find_matrices(self.folder, self.config, shapes, self.same_bytes)

    @property
    def tied(self) -> bool:
        """Whether one table serves as input embedding and as output head."""
        return any(table.role == "input" and table.is_head for table in self.matrices)

    @property
    def nbytes(self) -> int:
        """Bytes of all weight files."""
        return sum(shard.size for shard in self.shards)

    def matrix(self, role: str) -> VocabMatrix | None:
        """Return the first table of a role; a tied model's head is its input table."""
        for table in self.matrices:
            if table.role == role or (role == "output" and table.is_head):
                return table
        return None

    def path_of(self, name: str) -> Path:
        """Return the file that holds a tensor."""
        return self.folder / self.tensors[name].file

    def same_bytes(self, first: str, second: str) -> bool:
        """Return whether two tensors hold the same bytes; stops at the first difference."""
        a, b = self.tensors[first], self.tensors[second]
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return False
        pairs = zip(self.blocks(first), self.blocks(second), strict=True)
        return all(left == right for left, right in pairs)

    def blocks(self, name: str, size: int = _BLOCK) -> Iterator[bytes]:
        """Yield the bytes of a tensor in blocks of at most `size`."""
        info = self.tensors[name]
        with open(self.path_of(name), "rb") as file:
            file.seek(info.start)
            left = info.nbytes
            while left:
                block = file.read(min(size, left))
                if not block:
                    raise InputError("truncated-weights", "the file is shorter than its header says", file=file.name)
                left -= len(block)
                yield block

    def raw_rows(self, name: str, axis: int = 0) -> np.ndarray:
        """Return a tensor as uint8[V, row bytes], memory-mapped: a view that loads nothing until it is read.

        axis 1 is for the one-row tensors `(1, V)`, whose rows are single elements.
        """
        info = self.tensors[name]
        rows = info.shape[axis]
        shape = (rows, info.nbytes // rows)
        return np.memmap(self.path_of(name), np.uint8, "r", offset=info.start, shape=shape)


def open_checkpoint(folder: str | Path) -> Checkpoint:
    """Read the headers and configs of a model folder.

    Every fault that can be seen without reading a weight is reported here. Raises InputError: missing-config,
    bad-config, missing-weights, pickled-weights, adapter-weights, bad-index, missing-shard, outside-shard,
    outside-link, truncated-weights, bad-header.
    """
    folder = Path(folder)
    check_links(folder, ("config.json", "generation_config.json", "model.safetensors.index.json"))
    config = read_json(folder / "config.json", "config")
    has_generation = (folder / "generation_config.json").is_file()
    generation = read_json(folder / "generation_config.json", "config") if has_generation else {}
    check_config(config, folder / "config.json")
    check_config(generation, folder / "generation_config.json")
    index_path = folder / "model.safetensors.index.json"
    index = None
    if index_path.is_file():
        index = read_json(index_path, "index")
        files = _index_files(index, index_path)
    elif (folder / "model.safetensors").is_file():
        files = ["model.safetensors"]
    else:
        raise _no_weights(folder)
    check_links(folder, files)
    shards = tuple(read_shard(folder / name) for name in files)
    tensors: dict[str, TensorInfo] = {}
    for shard in shards:
        for info in shard.tensors:
            if info.name in tensors:
                raise InputError(
                    "bad-index",
                    f"the tensor {info.name} stands in two shards",
                    "only one of them can be meant; write the checkpoint again with save_pretrained",
                    first=tensors[info.name].file,
                    second=info.file,
                )
            tensors[info.name] = info
    if index is not None:
        _check_index(index["weight_map"], tensors, index_path)
    return Checkpoint(folder, config, generation, shards, index, tensors)


def load_tensors(path: Path) -> tuple[dict[str, Any], dict[str, str] | None]:
    """Load all of a small safetensors file: its tensors by name, for torch, and its metadata.

    Raises InputError: missing-shard, bad-header, truncated-weights.
    """
    metadata = read_shard(path).metadata  # says what is wrong with a damaged file
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path), None if metadata is None else dict(metadata)
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise _bad_header(path, f"its tensors cannot be read: {error}") from error


def has_weights(folder: Path) -> bool:
    """Return whether a folder holds a checkpoint in any form, so that the donor can default to it."""
    return (folder / "config.json").is_file() and (
        any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))
    )


def read_shard(path: Path) -> Shard:
    """Read and check the header of one safetensors file."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(_MOST_HEADER, size - 8):
                raise _bad_header(path, "its header is longer than the file", "truncated-weights")
            header = json.loads(file.read(length).decode())  # decoded here: json would take UTF-16 too
    except FileNotFoundError as error:
        raise InputError("missing-shard", "a weight file is missing", "download it again", file=path) from error
    except (OSError, ValueError, RecursionError) as error:
        raise _bad_header(path, f"its header cannot be read: {error}") from error
    if not isinstance(header, dict):
        raise _bad_header(path, "its header is not a JSON object")
    metadata = header.pop("__metadata__", None)
    if metadata is not None and not (
        isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    ):
        raise _bad_header(path, "its metadata is not a JSON object of strings")
    infos = sorted(
        (_tensor(path, name, entry, 8 + length) for name, entry in header.items()), key=lambda i: (i.start, i.end)
    )
    at = 8 + length
    for info in infos:
        if info.start != at:
            raise _bad_header(path, f"the tensor {info.name} does not start where the one before it ends")
        at = info.end
    if at > size:
        raise _bad_header(path, f"its tensors need {at:,} bytes and the file has {size:,}", "truncated-weights")
    if at < size:
        raise _bad_header(path, f"{size - at:,} bytes at its end belong to no tensor")
    return Shard(path, tuple(infos), metadata, size)


def _tensor(path: Path, name: str, entry: object, base: int) -> TensorInfo:
    try:
        dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]  # type: ignore[index]
        whole = all(type(number) is int and 0 <= number < 1 << 63 for number in (*shape, start, end))
    except (TypeError, KeyError, ValueError) as error:
        raise _bad_header(path, f"the entry of tensor {name!r} is damaged") from error
    if not whole or end < start or not isinstance(dtype, str):
        raise _bad_header(path, f"the entry of tensor {name!r} has impossible numbers")
    known = DTYPE_BYTES.get(dtype)
    if known is None and dtype not in _SUB_BYTE:
        raise _bad_header(path, f"the tensor {name!r} has the unknown type {dtype!r}")
    if known is not None and prod(shape) * known != end - start:
        raise _bad_header(path, f"the tensor {name!r} says {end - start:,} bytes, and its shape needs another number")
    return TensorInfo(name, dtype, shape, path.name, base + start, base + end)


def _bad_header(path: Path, problem: str, code: str = "bad-header") -> InputError:
    return InputError(code, f"this safetensors file is damaged: {problem}", "download it again", file=path)


def _index_files(index: Mapping[str, Any], path: Path) -> list[str]:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise InputError("bad-index", "the index has no `weight_map` from tensor to file name", file=path)
    metadata = index.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise InputError("bad-index", "the `metadata` of the index is no object", file=path)
    files = sorted(set(weight_map.values()))
    present = set(os.listdir(path.parent))
    for name in files:
        if os.path.basename(name) != name or name in ("", ".", ".."):
            raise InputError(
                "outside-shard",
                f"the index names a file that is not in its folder: {name!r}",
                "every shard must lie beside the index",
                index=path,
            )
        if name not in present or not (path.parent / name).is_file():
            hint = "download the missing file again"
            raise InputError("missing-shard", f"the index names {name}, which is not there", hint, index=path)
    return files


def _check_index(weight_map: Mapping[str, str], tensors: Mapping[str, TensorInfo], path: Path) -> None:
    for name, file in weight_map.items():
        if name not in tensors or tensors[name].file != file:
            raise InputError("bad-index", f"the index puts {name} into {file}, which does not hold it", index=path)


def _no_weights(folder: Path) -> InputError:
    if any(folder.glob("pytorch_model*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth")):
        return InputError(
            "pickled-weights",
            "these weights are pickled, and unpickling runs whatever code they hold",
            "convert them where you trust them: load with transformers and save_pretrained(..., safe_serialization=True)",
            folder=folder,
        )
    if (folder / "adapter_model.safetensors").is_file():
        hint = "merge the adapter into its base model first (peft: merge_and_unload)"
        return InputError("adapter-weights", "this is an adapter, not a whole model", hint, folder=folder)
    hint = "a model folder holds model.safetensors, or shards with model.safetensors.index.json"
    return InputError("missing-weights", "there are no safetensors weights in this folder", hint, folder=folder)
