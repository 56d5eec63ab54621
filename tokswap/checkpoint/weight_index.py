"""Which files hold the weights of a model folder. The choice is that of transformers.

A file that `transformers_weights` of config.json names comes first, then model.safetensors, then the index.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokswap.checkpoint.matrices import role_by_name
from tokswap.checkpoint.shards import Shard, TensorInfo
from tokswap.errors import InputError
from tokswap.storage.json_files import ADAPTER_CONFIG, read_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


@dataclass(frozen=True)
class WeightFiles:
    """The weight files that transformers loads from a folder.

    Attributes:
        names: Their names.
        index_name: Name of their index, "" without one.
        index: The parsed index, None without one.
        notes: What the user should know about the choice.
    """

    names: tuple[str, ...] = ()
    index_name: str = ""
    index: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


def weight_files(folder: Path, config: Mapping[str, Any]) -> WeightFiles:
    """Find the weight files of a model folder.

    Args:
        folder: The folder.
        config: Its parsed config.json.

    Raises:
        InputError: missing-weights, pickled-weights, adapter-weights, bad-index, missing-shard, outside-shard.
    """
    chosen = config.get("transformers_weights")
    if (isinstance(chosen, str) or _has_weights(folder)) and (folder / ADAPTER_CONFIG).is_file():
        raise InputError(
            "adapter-weights",
            "there is an adapter beside this model, and transformers loads both as one",
            f"merge them (peft: merge_and_unload), or move {ADAPTER_CONFIG} out of the folder to leave the adapter out",
            folder=folder,
        )
    if isinstance(chosen, str):
        return _named(folder, chosen)
    if (folder / SINGLE).is_file():
        return WeightFiles((SINGLE,), notes=_leftovers(folder))
    if (folder / INDEX).is_file():
        return _indexed(folder, INDEX)
    raise _no_weights(folder)


def _has_weights(folder: Path) -> bool:
    return (folder / SINGLE).is_file() or (folder / INDEX).is_file()


def _named(folder: Path, name: str) -> WeightFiles:
    """Return the weights that config.json names."""
    _check_inside(name, folder / "config.json", "config.json")
    if name.endswith(".safetensors.index.json"):
        return _indexed(folder, name)
    if not name.endswith(".safetensors"):
        message = f"`transformers_weights` of config.json names {name}, which is no safetensors file"
        raise InputError("missing-weights", message, "save the model again with save_pretrained", folder=folder)
    if not (folder / name).is_file():
        raise _missing(name, folder / "config.json", "config.json")
    return WeightFiles((name,))


def _indexed(folder: Path, name: str) -> WeightFiles:
    index = read_json(folder / name, "index")
    return WeightFiles(tuple(_index_files(index, folder / name)), name, index)


def _leftovers(folder: Path) -> tuple[str, ...]:
    """Say that a folder holds another set of weights beside model.safetensors."""
    if not (folder / INDEX).is_file() and not any(folder.glob("model-?????-of-?????.safetensors")):
        return ()
    return (
        f"the weights are those of {SINGLE}, which transformers loads; the shards or the index beside it are leftovers "
        "and are not used",
    )


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


def check_index(
    weights: WeightFiles, tensors: Mapping[str, TensorInfo], folder: Path, *, tied: bool = False
) -> tuple[str, ...]:
    """Check that the weight files hold every tensor of their index.

    Like transformers, take a tensor from the file that holds it, and keep a tensor that the index does not name. An
    lm_head that is tied to the input embeddings need not be stored, though the index may name it.

    Args:
        weights: The weight files and their index.
        tensors: What the files hold.
        folder: Where they are.
        tied: Whether config.json says that input embeddings and lm_head are one matrix.

    Returns:
        A note, where the index puts tensors into files that do not hold them.

    Raises:
        InputError: bad-index, where no file holds a tensor.
    """
    weight_map = weights.index["weight_map"] if weights.index is not None else {}
    left_out = {name for name in weight_map if name not in tensors and tied and role_by_name(name) == "output"}
    for name, file in weight_map.items():
        if name not in tensors and name not in left_out:
            message = f"the index puts {name} into {file}, and no weight file holds it"
            raise InputError("bad-index", message, file=folder / weights.index_name)
    moved = sum(tensors[name].file != file for name, file in weight_map.items() if name not in left_out)
    return (f"the index names the wrong file for {moved:,} tensors; the result's index is right",) if moved else ()


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
        _check_inside(name, path, "the index")
        if name not in present or not (path.parent / name).is_file():
            raise _missing(name, path, "the index")
    return files


def _check_inside(name: str, path: Path, what: str) -> None:
    if os.path.basename(name) != name or name in ("", ".", ".."):
        message = f"{what} names a file in another folder: {name!r}"
        raise InputError("outside-shard", message, "every weight file must lie beside config.json", file=path)


def _missing(name: str, path: Path, what: str) -> InputError:
    message = f"{what} names {name}, which is not there"
    return InputError("missing-shard", message, "download the missing file again", file=path)


def _no_weights(folder: Path) -> InputError:
    """Say what a folder holds in place of weights that transformers loads."""
    if any(folder.glob("medusa_lm_head.*")):
        message = "these are the heads of Medusa, not a whole model"
        hint = "they go with the vocabulary of their base model: change that one, and train heads for the result"
        return InputError("missing-weights", message, hint, folder=folder)
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
    message = "there are no safetensors weights in this folder"
    hint = f"a model folder holds {SINGLE}, or shards with {INDEX}"
    if any(folder.glob("*/*.distcp")) or any(folder.glob("global_step*/*.pt")):
        message = "these weights are the parts that the processes of a training have saved"
        hint = "join them first: `accelerate merge-weights` for FSDP, zero_to_fp32.py for DeepSpeed"
    elif names := sorted(path.name for path in folder.glob("*.safetensors")):
        message = f"transformers loads no safetensors file of the name {names[0]}"
        hint = (
            f"{INDEX} is missing: download it again"
            if any(re.search(r"-\d+-of-\d+\.", name) for name in names)
            else f"{hint}; another file counts if `transformers_weights` of config.json names it"
        )
    return InputError("missing-weights", message, hint, folder=folder)
