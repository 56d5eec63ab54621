"""Writes a checkpoint as a GGUF file, one tensor at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.errors import InputError
from tokswap.storage.gguf.architectures import Architecture, more_tensors

FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "bf16": 32}
"""Type of the matrices -> `general.file_type`."""
_AUTO = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
_BLOCK = 32
"""Values that Q8_0 quantises together."""


@dataclass(frozen=True)
class GgufModel:
    """A model as a GGUF file has it, all but its tensors.

    Attributes:
        architecture: How tensors are named and converted.
        config: Its config, with defaults filled in.
        name: Its name, for people.
        tokenizer: The `tokenizer.*` keys.
        dtype: Type of the matrices: f32, f16, bf16 or q8_0; auto is that of the input embeddings.
        tied: Whether lm_head is the input embeddings, which are then written once.
    """

    architecture: Architecture
    config: Any
    name: str
    tokenizer: Mapping[str, Any]
    dtype: str = "auto"
    tied: bool = False

    def target(self, name: str) -> str | None:
        """Return the name of a tensor in the file, None for one that is not written. Raises InputError."""
        found = self.architecture.tensor(name)
        return None if self.tied and found == "output.weight" else found


def check_installed() -> None:
    """Check that the `gguf` package is there.

    Raises:
        InputError: missing-extra.
    """
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        hint = "pip install 'tokswap[gguf]'"
        raise InputError("missing-extra", "writing a GGUF file needs the gguf package", hint) from error


def file_bytes(dtype: str, parameters: int, nbytes: int) -> int:
    """Return about how large a file is. nbytes: size of the checkpoint."""
    per_value = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32}
    return int(parameters * per_value[dtype]) if dtype in per_value else nbytes


def write_model(path: Path, model: GgufModel, folder: Path) -> None:
    """Write a GGUF file.

    Args:
        path: The file.
        model: What is written besides tensors.
        folder: The checkpoint whose tensors are written.

    Raises:
        InputError: gguf-architecture.
        OSError: The file cannot be written.
    """
    import gguf

    places = dict(sorted(_places(folder, model)))
    dtype = model.dtype if model.dtype != "auto" else _type_of(places)
    writer = gguf.GGUFWriter(path, model.architecture.name)
    writer.add_name(model.name)
    writer.add_file_type(FILE_TYPES[dtype])
    for key, value in model.architecture.keys(model.config).items():
        _add(writer, f"{model.architecture.name}.{key}", value)
    _add(writer, f"{model.architecture.name}.vocab_size", len(model.tokenizer["tokenizer.ggml.tokens"]))
    for key, value in model.tokenizer.items():
        _add(writer, key, value)
    more = dict(more_tensors(model.config))
    kinds = {name: _kind(place.shape, dtype, gguf) for name, place in places.items()}
    for name, values in more.items():
        writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
    for name, place in places.items():
        _announce(writer, name, place.shape, kinds[name], gguf)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for values in more.values():
        writer.write_tensor_data(values)
    for name, place in places.items():
        values = model.architecture.convert(place.name, place.read(), model.config)
        writer.write_tensor_data(gguf.quants.quantize(np.ascontiguousarray(values), kinds[name]))
    writer.close()


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in the checkpoint, and its shape in the file."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str

    def read(self) -> np.ndarray:
        """Return the values, float32."""
        import torch
        from safetensors import safe_open

        with safe_open(self.file, "pt") as opened:
            return np.asarray(opened.get_tensor(self.name).to(torch.float32).numpy())


def _places(folder: Path, model: GgufModel) -> Iterator[tuple[str, _Place]]:
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118  not a mapping
                target = model.target(name)
                if target is None:
                    continue
                part = opened.get_slice(name)
                flat = np.broadcast_to(np.float32(0), part.get_shape())
                shape = model.architecture.convert(name, flat, model.config).shape
                yield target, _Place(file, name, tuple(shape), dtype=part.get_dtype())


def _type_of(places: Mapping[str, _Place]) -> str:
    """Return the type of the input embeddings."""
    return _AUTO.get(places["token_embd.weight"].dtype, "f16")


def _kind(shape: tuple[int, ...], dtype: str, gguf: Any) -> Any:
    """Return the type of one tensor: vectors stay float32, and rows that Q8_0 cannot divide become float16."""
    kinds = gguf.GGMLQuantizationType
    if len(shape) == 1:
        return kinds.F32
    if dtype == "q8_0" and shape[-1] % _BLOCK:
        return kinds.F16
    return kinds[dtype.upper()]


def _announce(writer: Any, name: str, shape: tuple[int, ...], kind: Any, gguf: Any) -> None:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    nbytes = int(np.prod(shape)) // block * size
    stored = (*shape[:-1], shape[-1] // block * size)
    plain = {gguf.GGMLQuantizationType.F32: np.float32, gguf.GGMLQuantizationType.F16: np.float16}
    if kind in plain:
        writer.add_tensor_info(name, shape, np.dtype(plain[kind]), nbytes)
    else:
        writer.add_tensor_info(name, stored, np.dtype(np.uint8), nbytes, raw_dtype=kind)


def _add(writer: Any, key: str, value: Any) -> None:
    """Add a key; the type of the value decides its type in the file."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, np.ndarray) and value.dtype == np.uint8:
        writer.add_array(key, value.tobytes())
    elif len(value):
        writer.add_array(key, value.tolist() if isinstance(value, np.ndarray) else value)
