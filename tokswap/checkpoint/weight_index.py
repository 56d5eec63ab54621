"""Which files hold the weights of a model folder, by its index or by the usual name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokswap.checkpoint.shards import Shard, TensorInfo
from tokswap.errors import InputError
from tokswap.storage.json_files import read_json

INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


def weight_files(folder: Path) -> tuple[list[str], Mapping[str, Any] | None]:
    """Find the weight files of a model folder.

    Returns:
        Their names, and the parsed index, None without one.

    Raises:
        InputError: missing-weights, pickled-weights, adapter-weights, bad-index, missing-shard, outside-shard.
    """
    path = folder / INDEX
    if path.is_file():
        index = read_json(path, "index")
        return _index_files(index, path), index
    if (folder / _SINGLE).is_file():
        return [_SINGLE], None
    raise _no_weights(folder)


def tensors_of(shards: Iterable[Shard]) -> dict[str, TensorInfo]:
    """Return the tensors of all shards by name.

    Raises:
        InputError: bad-index, where two shards hold the same tensor.
    """
    tensors: dict[str, TensorInfo] = {}
    for shard in shards:
        for info in shard.tensors:
            if info.name in tensors:
                raise InputError(
                    "bad-index",
                    f"two shards hold the tensor {info.name}",
                    "write the checkpoint again with save_pretrained",
                    first=tensors[info.name].file,
                    second=info.file,
                )
            tensors[info.name] = info
    return tensors


def check_index(index: Mapping[str, Any], tensors: Mapping[str, TensorInfo], folder: Path) -> None:
    """Check that every tensor of an index lies in the shard that the index names.

    A tensor that the index does not name is no error: it is kept.

    Raises:
        InputError: bad-index.
    """
    for name, file in index["weight_map"].items():
        if name not in tensors or tensors[name].file != file:
            message = f"the index puts {name} into {file}, which does not hold it"
            raise InputError("bad-index", message, file=folder / INDEX)


def _index_files(index: Mapping[str, Any], path: Path) -> list[str]:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise InputError("bad-index", "the index has no `weight_map` from tensor to file name", file=path)
    metadata = index.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise InputError("bad-index", "`metadata` of the index is not a JSON object", file=path)
    files = sorted(set(weight_map.values()))
    present = set(os.listdir(path.parent))
    for name in files:
        if os.path.basename(name) != name or name in ("", ".", ".."):
            raise InputError(
                "outside-shard",
                f"the index names a file outside its folder: {name!r}",
                "every shard must lie beside the index",
                index=path,
            )
        if name not in present or not (path.parent / name).is_file():
            hint = "download the missing file again"
            raise InputError("missing-shard", f"the index names {name}, which is not there", hint, index=path)
    return files


def _no_weights(folder: Path) -> InputError:
    if any(folder.glob("pytorch_model*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth")):
        return InputError(
            "pickled-weights",
            "these weights are pickled, and unpickling runs any code that they contain",
            "convert them where you trust them: load with transformers, then save_pretrained(safe_serialization=True)",
            folder=folder,
        )
    if (folder / "adapter_model.safetensors").is_file():
        hint = "merge the adapter into its base model first (peft: merge_and_unload)"
        return InputError("adapter-weights", "this is an adapter, not a whole model", hint, folder=folder)
    hint = f"a model folder holds {_SINGLE}, or shards with {INDEX}"
    return InputError("missing-weights", "there are no safetensors weights in this folder", hint, folder=folder)
