"""A model: its configs, its tensors and its vocabulary matrices. A model folder is never loaded whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.checkpoint.class_defaults import with_class_size
from tokswap.checkpoint.configs import needed_ids
from tokswap.checkpoint.facts import ModelFacts, model_facts
from tokswap.checkpoint.find_matrices import find_matrices
from tokswap.checkpoint.matrices import VocabMatrix
from tokswap.checkpoint.modules import read_modules
from tokswap.checkpoint.nested_configs import vocabulary_configs
from tokswap.checkpoint.processors import read_processors
from tokswap.checkpoint.schema import check_config
from tokswap.checkpoint.shards import Shard, TensorInfo, read_shard
from tokswap.checkpoint.weight_index import INDEX, WeightFiles, check_index, tensors_of, weight_files
from tokswap.errors import InputError
from tokswap.options.kinds import typed
from tokswap.storage.json_files import read_json
from tokswap.storage.links import check_links
from tokswap.storage.resolve import input_path

_BLOCK = 64 << 20


@dataclass(frozen=True)
class Checkpoint:
    """A model folder with safetensors weights, or a model in memory that is read like one.

    Attributes:
        folder: Where it is; for a model in memory its name.
        config: config.json, parsed.
        generation_config: generation_config.json, parsed; {} without one.
        shards: Its weight files.
        weights: The names of these files, and their index.
        tensors: All tensors by name.
        memory: The torch tensors by name, where the model is in memory; None for a folder.
        notes: What the user should know about the weight files.
    """

    folder: Path
    config: Mapping[str, Any]
    generation_config: Mapping[str, Any]
    shards: tuple[Shard, ...]
    weights: WeightFiles = field(default_factory=WeightFiles)
    tensors: Mapping[str, TensorInfo] = field(default_factory=dict)
    memory: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()

    @property
    def on_disk(self) -> bool:
        """Whether the tensors lie in files."""
        return self.memory is None

    @cached_property
    def facts(self) -> ModelFacts:
        """What the config says about the model."""
        return model_facts(self.config)

    @cached_property
    def modules(self) -> Mapping[str, Mapping[str, Any]]:
        """The settings of sentence-transformers beside the model. See `read_modules` for what this raises."""
        return read_modules(self.folder) if self.on_disk else {}

    @cached_property
    def processors(self) -> Mapping[str, Mapping[str, Any]]:
        """The files of processors of images and sound. See `read_processors` for what this raises."""
        return read_processors(self.folder) if self.on_disk else {}

    @cached_property
    def named_ids(self) -> Mapping[int, str]:
        """The ids that the configs and the modules beside them name, and the key of each."""
        found: dict[int, str] = {}
        for config in (self.config, self.generation_config, *self.modules.values()):
            found = {**needed_ids(config), **found}
        return found

    @cached_property
    def matrices(self) -> tuple[VocabMatrix, ...]:
        """The vocabulary matrices. See `find_matrices` for what this raises."""
        shapes = {name: (info.dtype, info.shape) for name, info in self.tensors.items()}
        return find_matrices(self.folder, self.config, shapes, self.same_bytes)

    @property
    def tied(self) -> bool:
        """Whether one matrix serves as input embeddings and as lm_head."""
        return any(matrix.role == "input" and matrix.is_head for matrix in self.matrices)

    @property
    def nbytes(self) -> int:
        """Bytes of all weight files."""
        return sum(shard.size for shard in self.shards)

    def matrix(self, role: str) -> VocabMatrix | None:
        """Return the first matrix of a role. The "output" of a tied model is its input embeddings."""
        for matrix in self.matrices:
            if matrix.role == role or (role == "output" and matrix.is_head):
                return matrix
        return None

    def path_of(self, name: str) -> Path:
        """Return the file that holds a tensor."""
        return self.folder / self.tensors[name].file

    def same_bytes(self, first: str, second: str) -> bool:
        """Return whether two tensors hold the same bytes. The comparison stops at the first difference."""
        a, b = self.tensors[first], self.tensors[second]
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return False
        pairs = zip(self.blocks(first), self.blocks(second), strict=True)
        return all(left == right for left, right in pairs)

    def blocks(self, name: str, size: int = _BLOCK) -> Iterator[bytes]:
        """Yield the bytes of a tensor in blocks of at most `size` bytes.

        Raises:
            InputError: truncated-weights, where the file has shrunk since its header was read.
        """
        info = self.tensors[name]
        if self.memory is not None:
            raw = _raw_bytes(self.memory[name])
            yield from (raw[start : start + size].tobytes() for start in range(0, info.nbytes, size))
            return
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
        """Return the rows of a tensor as raw bytes. Of a file, no row is loaded before it is read.

        Args:
            name: Name of the tensor.
            axis: The axis that counts tokens: 1 for a tensor `[1, V]`, whose rows are single elements.

        Returns:
            uint8 [V, bytes per row].
        """
        info = self.tensors[name]
        rows = info.shape[axis]
        shape = (rows, info.nbytes // rows)
        if self.memory is not None:
            return _raw_bytes(self.memory[name]).reshape(shape)
        return np.memmap(self.path_of(name), np.uint8, "r", offset=info.start, shape=shape)


@typed
def open_checkpoint(folder: str | Path) -> Checkpoint:
    """Read the configs and weight headers of a model folder.

    Everything that can be checked without reading a weight is checked here.

    Raises:
        UsageError: bad-model.
        InputError: missing-config, bad-config, missing-weights, pickled-weights, adapter-weights, bad-index,
            missing-shard, outside-shard, outside-link, truncated-weights, bad-header.
    """
    folder = input_path(folder)
    check_links(folder, ("config.json", "generation_config.json", INDEX))
    config = read_json(folder / "config.json", "config")
    has_generation = (folder / "generation_config.json").is_file()
    generation = read_json(folder / "generation_config.json", "config") if has_generation else {}
    check_config(config, folder / "config.json")
    if not vocabulary_configs(config):
        config = with_class_size(config)
    check_config(generation, folder / "generation_config.json")
    weights = weight_files(folder, config)
    check_links(folder, [*weights.names, *([weights.index_name] if weights.index_name else [])])
    shards = tuple(read_shard(folder / name) for name in weights.names)
    tensors = tensors_of(shards)
    notes = check_index(weights, tensors, folder, tied=model_facts(config).tied is True)
    return Checkpoint(
        folder=folder,
        config=config,
        generation_config=generation,
        shards=shards,
        weights=weights,
        tensors=tensors,
        notes=(*weights.notes, *notes),
    )


def has_weights(folder: Path) -> bool:
    """Return whether a folder holds a checkpoint in any form, pickled weights included."""
    return (folder / "config.json").is_file() and (
        any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))
    )


def _raw_bytes(tensor: Any) -> np.ndarray:
    """Return the bytes of a torch tensor, uint8 [bytes]; a view where the tensor is contiguous and on the CPU."""
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return np.asarray(flat.view(torch.uint8).numpy()) if flat.numel() else np.empty(0, np.uint8)
