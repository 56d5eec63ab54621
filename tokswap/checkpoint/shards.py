"""One safetensors file: its header, and where the bytes of each tensor lie.

The format is 8 bytes with the size of the header, the header as JSON, and then the tensors without gaps
(https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from tokswap.errors import InputError

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
"""Bytes per element, by the name that safetensors gives a dtype."""

_PACKED = ("F4", "F6_E2M3", "F6_E3M2", "I4", "U4")
"""Dtypes of less than a byte per element. Their tensors are copied whole, so their size is not checked."""
_MOST_HEADER = 100 << 20


@dataclass(frozen=True)
class TensorInfo:
    """What a header says about one tensor.

    Attributes:
        name: Name of the tensor.
        dtype: Type of its elements, as safetensors names it.
        shape: Sizes of its axes.
        file: Name of the file that holds it.
        start: First byte, counted from the beginning of the file.
        end: Byte after the last one.
    """

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
    """One safetensors file.

    Attributes:
        path: Where it is.
        tensors: Its tensors in the order of their bytes.
        metadata: `__metadata__` of its header, None without one.
        size: Bytes of the whole file.
    """

    path: Path
    tensors: tuple[TensorInfo, ...]
    metadata: Mapping[str, str] | None
    size: int


def read_shard(path: Path) -> Shard:
    """Read and check the header of a safetensors file.

    Raises:
        InputError: missing-shard, bad-header, truncated-weights.
    """
    size, header, base = _read_header(path)
    metadata = header.pop("__metadata__", None)
    if metadata is not None and not (
        isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    ):
        raise _bad_header(path, "its metadata is not a JSON object of strings")
    infos = [_tensor(path, name, entry, base) for name, entry in header.items()]
    infos.sort(key=lambda info: (info.start, info.end))
    _check_places(path, infos, base, size)
    return Shard(path=path, tensors=tuple(infos), metadata=metadata, size=size)


def load_tensors(path: Path) -> tuple[dict[str, Any], dict[str, str] | None]:
    """Load all tensors of a small safetensors file.

    Returns:
        The torch tensors by name, and the metadata of the file.

    Raises:
        InputError: missing-shard, bad-header, truncated-weights.
    """
    metadata = read_shard(path).metadata  # its messages say what is wrong with a damaged file
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path), None if metadata is None else dict(metadata)
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise _bad_header(path, f"its tensors cannot be read: {error}") from error


def _read_header(path: Path) -> tuple[int, dict[str, Any], int]:
    """Return the size of a file, its header, and where the bytes of its tensors begin."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(_MOST_HEADER, size - 8):
                raise _bad_header(path, "its header is longer than the file", "truncated-weights")
            header = json.loads(file.read(length).decode())  # decoded here: json would also take UTF-16
    except FileNotFoundError as error:
        raise InputError("missing-shard", "a weight file is missing", "download it again", file=path) from error
    except (OSError, ValueError, RecursionError) as error:
        raise _bad_header(path, f"its header cannot be read: {error}") from error
    if not isinstance(header, dict):
        raise _bad_header(path, "its header is not a JSON object")
    return size, header, 8 + length


def _tensor(path: Path, name: str, entry: object, base: int) -> TensorInfo:
    """Check the entry of one tensor in a header whose tensors begin at byte `base`."""
    try:
        dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]  # type: ignore[index]
        whole = all(type(number) is int and 0 <= number < 1 << 63 for number in (*shape, start, end))
    except (TypeError, KeyError, ValueError) as error:
        raise _bad_header(path, f"the entry of tensor {name!r} is damaged") from error
    if not whole or end < start or not isinstance(dtype, str):
        raise _bad_header(path, f"the entry of tensor {name!r} has impossible numbers")
    known = DTYPE_BYTES.get(dtype)
    if known is None and dtype not in _PACKED:
        raise _bad_header(path, f"the tensor {name!r} has the unknown type {dtype!r}")
    if known is not None and prod(shape) * known != end - start:
        raise _bad_header(path, f"the tensor {name!r} takes {end - start:,} bytes, which does not fit its shape")
    return TensorInfo(name=name, dtype=dtype, shape=shape, file=path.name, start=base + start, end=base + end)


def _check_places(path: Path, infos: list[TensorInfo], base: int, size: int) -> None:
    """Check that the tensors follow each other without gaps and fill the file."""
    at = base
    for info in infos:
        if info.start != at:
            raise _bad_header(path, f"the tensor {info.name} does not start where the one before it ends")
        at = info.end
    if at > size:
        raise _bad_header(path, f"its tensors need {at:,} bytes and the file has {size:,}", "truncated-weights")
    if at < size:
        raise _bad_header(path, f"{size - at:,} bytes at its end belong to no tensor")


def _bad_header(path: Path, problem: str, code: str = "bad-header") -> InputError:
    return InputError(code, f"this safetensors file is damaged: {problem}", "download it again", file=path)
