"""PEFT adapters of a model that was trimmed or extended: the rows of their vocabulary matrices follow."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokswap.checkpoint.reader import open_checkpoint
from tokswap.checkpoint.shards import load_tensors
from tokswap.errors import InputError
from tokswap.storage.atomic import check_output, workspace
from tokswap.storage.json_files import ADAPTER_CONFIG, json_bytes, read_json
from tokswap.storage.links import check_links
from tokswap.storage.resolve import lasting_name, output_path
from tokswap.tokenizer.tokenizer import CONVERTIBLE
from tokswap.trim.adapter_tensors import followed_axis, padded, refuse_settings
from tokswap.trim.ids import VocabMap, read_map

_WEIGHTS = "adapter_model.safetensors"
_TOKEN_LISTS = ("trainable_token_indices", "token_indices", "cpt_token_ids", "alora_invocation_tokens")
"""Settings that list ids: rows that are trained one by one, and the words that an aLoRA begins to work after."""


def is_adapter(name: str) -> bool:
    """Return whether a folder holds an adapter without its model.

    Args:
        name: Path of the folder.
    """
    folder = Path(name).expanduser()
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def remap_adapter(
    adapter: str, changed: str | Path, out: str | Path | None = None, *, force: bool = False, dry_run: bool = False
) -> dict[str, Any]:
    """Write an adapter for the trimmed or extended form of its model.

    Args:
        adapter: Folder of the adapter.
        changed: Folder of the trimmed or extended model.
        out: Output folder; named after both by default.
        force: Whether to replace an existing folder.
        dry_run: Whether to write nothing.

    Returns:
        Plain data with these keys.
        adapter: Folder of the adapter.
        out: Output folder.
        tensors: Number of tensors.
        remapped: Tensor name -> [shape before, shape after].

    Raises:
        InputError: adapter-format, unsupported-adapter, outside-link, unmapped-row, missing-map, bad-map, and what
            `load_tensors` and `open_checkpoint` raise.
        OutputError: what `check_output` and `workspace` raise.
    """
    folder, target = Path(adapter).expanduser(), Path(changed).expanduser()
    path = output_path(out) if out is not None else Path(f"{folder.name}-{target.name}")
    if not (folder / _WEIGHTS).is_file():
        hint = f"save it again with peft's save_pretrained, which writes {_WEIGHTS}"
        raise InputError("adapter-format", "this adapter has no safetensors weights", hint, folder=folder)
    check_links(folder, sorted(file.name for file in folder.iterdir()))
    settings = read_json(folder / ADAPTER_CONFIG, "config")
    ids = read_map(target)
    settings |= _listed_ids(settings, ids.new_of)
    # AutoPeftModel and inference engines load the model that the adapter names, and on the old one its ids are wrong.
    settings |= {"base_model_name_or_path": lasting_name(target), "revision": None}
    check_output(path, sources=[folder, target], needed=(folder / _WEIGHTS).stat().st_size, force=force)
    tensors, metadata = load_tensors(folder / _WEIGHTS)
    model = open_checkpoint(target)
    remapped = {}
    for name in tensors:
        before = tensors[name].shape
        axis = followed_axis(name, before, ids.rows_before, model, settings)
        if axis is not None:  # one by one, so that memory holds a matrix twice, not all of them
            rows = model.matrices[0].rows
            tensors[name] = padded(name, _selected(tensors[name], axis, ids), axis, rows, model)
            remapped[name] = [list(before), list(tensors[name].shape)]
    if remapped:
        refuse_settings(settings, folder)
    if not dry_run:
        from safetensors.torch import save

        with workspace(path, force) as work:
            _copy_files(folder, target, work)
            (work / ADAPTER_CONFIG).write_bytes(json_bytes(settings))
            (work / _WEIGHTS).write_bytes(save(tensors, metadata=metadata))
    return {"adapter": adapter, "out": str(path), "tensors": len(tensors), "remapped": remapped}


def _selected(tensor: Any, axis: int, ids: VocabMap) -> Any:
    """Return a vocabulary matrix with the rows of the kept ids, in the order of the changed model."""
    import torch

    old = sorted(ids.new_of, key=ids.new_of.__getitem__)
    return tensor.index_select(axis, torch.tensor(old, dtype=torch.long)).contiguous()


def _copy_files(folder: Path, target: Path, work: Path) -> None:
    """Copy the other files of an adapter, with the tokenizer of the changed model in place of its own."""
    has_tokenizer = (folder / "tokenizer_config.json").is_file()
    for file in (*folder.iterdir(), *(target.glob("*token*") if has_tokenizer else ())):
        written = file.name in (_WEIGHTS, ADAPTER_CONFIG)
        old_tokenizer = file.parent == folder and ("token" in file.name or file.name in CONVERTIBLE)
        if file.is_file() and not written and not old_tokenizer:
            shutil.copyfile(file, work / file.name)


def _listed_ids(settings: Mapping[str, Any], new_of: Mapping[int, int]) -> dict[str, Any]:
    """Translate the settings that list ids to new ids. Every listed token must still exist."""
    new: dict[str, Any] = {}
    for key in _TOKEN_LISTS:
        value = settings.get(key)
        if isinstance(value, dict):
            new[key] = {name: _new_ids(key, ids, new_of) for name, ids in value.items()}
        elif isinstance(value, list):
            new[key] = _new_ids(key, value, new_of)
    return new


def _new_ids(key: str, ids: Any, new_of: Mapping[int, int]) -> list[int]:
    if not (isinstance(ids, list) and all(type(token) is int for token in ids)):
        message = f"`{key}` of the adapter must be a list of ids"
        raise InputError("adapter-format", message, "save it again with peft's save_pretrained")
    gone = [token for token in ids if token not in new_of]
    if gone:
        raise InputError(
            "unmapped-row",
            f"the adapter needs the token of id {gone[0]} (`{key}`), which the changed model has dropped",
            "trim again with --keep-token for each token that the adapter needs, or extend without --replace",
        )
    return [new_of[token] for token in ids]
