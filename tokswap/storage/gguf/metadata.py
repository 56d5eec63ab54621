"""The keys of a GGUF file. Only the header is read; its arrays can hold a million strings."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.errors import InputError

_NUMBERS = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8"}
"""Type of a value in the file -> the same type in numpy."""
_STRING, _ARRAY = 8, 9


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the keys of a GGUF file, and the number of tensors under the key "tensors".

    Strings are `str`, numbers Python numbers; an array is a list of strings or a numpy array.

    Raises:
        InputError: bad-gguf.
    """
    try:
        with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            return _Reader(data).metadata()
    except (ValueError, struct.error) as error:  # too short, not UTF-8, or of an unknown type
        raise InputError("bad-gguf", f"the header of this GGUF file is damaged: {error}", file=path) from error


@dataclass
class _Reader:
    data: mmap
    at: int = 0

    def metadata(self) -> dict[str, Any]:
        if self._take(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        version, tensors, keys = struct.unpack("<IQQ", self._take(20))
        if version not in (2, 3):
            raise ValueError(f"version {version} is not supported")
        found: dict[str, Any] = {"tensors": tensors}
        for _ in range(keys):
            name = self._string()
            found[name] = self._value(self._number("<u4"))
        return found

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._number(self._type(kind))
        kind, count = self._number("<u4"), self._number("<u8")
        if kind in (_STRING, _ARRAY):
            if count > len(self.data):
                raise ValueError(f"an array of {count:,} values")
            read: Callable[[], Any] = self._string if kind == _STRING else lambda: self._value(_ARRAY)
            return [read() for _ in range(count)]
        dtype = np.dtype(self._type(kind))
        return np.frombuffer(self._take(count * dtype.itemsize), dtype)

    def _string(self) -> str:
        return self._take(int.from_bytes(self._take(8), "little")).decode()

    def _number(self, dtype: str) -> Any:
        return np.frombuffer(self._take(np.dtype(dtype).itemsize), dtype)[0].item()

    @staticmethod
    def _type(kind: int) -> str:
        if kind not in _NUMBERS:
            raise ValueError(f"type {kind} is unknown")
        return _NUMBERS[kind]

    def _take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.data):
            raise ValueError("it ends too early")
        taken = self.data[self.at : end]
        self.at = end
        return taken
