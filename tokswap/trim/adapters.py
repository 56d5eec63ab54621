"""LoRA and PEFT adapters of a model that has been trimmed: the rows of their vocabulary tables follow it.

Tensor names are those of peft (https://huggingface.co/docs/peft): a full copy of a table (`modules_to_save`), the factors of
an embedding (`lora_embedding_A` [r, V]) and of a head (`lora_B.weight` [V, r]), and trained single rows.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from tokswap.checkpoint.reader import load_tensors
from tokswap.errors import InputError
from tokswap.storage.atomic import check_output, workspace
from tokswap.storage.json_files import json_bytes, read_json
from tokswap.storage.links import check_links
from tokswap.tokenizer.tokenizer import CONVERTIBLE
from tokswap.trim.ids import read_map

_WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_TABLE = re.compile(
    r"\.(embed_tokens|wte|word_embeddings|embed_in|shared|lm_head|embed_out|decoder|output_projection)"
    r"\.(modules_to_save\.|original_module\.|base_layer\.)?(lora_embedding_A|lora_B|weight|bias)\b"
)
"""Tensors of an adapter that have one row, or one column, a token."""


def is_adapter(name: str) -> bool:
    """Return whether a folder holds an adapter and no model."""
    folder = Path(name).expanduser()
    return (folder / _CONFIG).is_file() and not (folder / "config.json").is_file()


def remap_adapter(
    adapter: str, trimmed: str, out: object = None, *, force: bool = False, dry_run: bool = False
) -> dict[str, Any]:
    """Write an adapter for the trimmed form of its model. trimmed: the folder that a trim has written.

    Returns plain data: adapter, out, tensors, and remapped (tensor name -> shape before and after). Raises InputError:
    adapter-format, outside-link, unmapped-row, missing-map, bad-map; OutputError.
    """
    folder, target = Path(adapter).expanduser(), Path(trimmed).expanduser()
    path = Path(str(out)) if out is not None else Path(f"{folder.name}-trimmed")
    if not (folder / _WEIGHTS).is_file():
        hint = f"save it again with peft's save_pretrained, which writes {_WEIGHTS}"
        raise InputError("adapter-format", "this adapter has no safetensors weights", hint, folder=folder)
    check_links(folder, sorted(file.name for file in folder.iterdir()))
    settings = read_json(folder / _CONFIG, "config")
    new_of, before, after = read_map(target)
    _follow_rows(settings, new_of)
    check_output(path, sources=[folder, target], needed=(folder / _WEIGHTS).stat().st_size, force=force)
    import torch
    from safetensors.torch import save

    source_of = torch.zeros(after, dtype=torch.long)  # padding takes row 0: it is never looked up
    for old, new in new_of.items():
        source_of[new] = old
    tensors, metadata = load_tensors(folder / _WEIGHTS)
    remapped = {}
    for name, tensor in tensors.items():
        if not _TABLE.search(name):
            continue
        sides = [side for side, size in enumerate(tensor.shape) if size == before]
        if not sides:
            raise InputError(
                "adapter-format",
                f"{name} has no side of {before:,}, the rows that the model had",
                "name the trim of the model that this adapter belongs to",
                folder=folder,
            )
        tensors[name] = tensor.index_select(sides[0], source_of).contiguous()
        remapped[name] = [list(tensor.shape), list(tensors[name].shape)]
    result = {"adapter": adapter, "out": str(path), "tensors": len(tensors), "remapped": remapped}
    if dry_run:
        return result
    with workspace(path, force) as work:
        has_tokenizer = (folder / "tokenizer_config.json").is_file()
        for file in (*folder.iterdir(), *(target.glob("*token*") if has_tokenizer else ())):
            written = file.name in (_WEIGHTS, _CONFIG)
            old_tokenizer = file.parent == folder and ("token" in file.name or file.name in CONVERTIBLE)
            if file.is_file() and not written and not old_tokenizer:
                shutil.copyfile(file, work / file.name)
        (work / _CONFIG).write_bytes(json_bytes(settings))
        (work / _WEIGHTS).write_bytes(save(tensors, metadata=metadata))
    return result


def _follow_rows(settings: dict[str, Any], new_of: dict[int, int]) -> None:
    """Translate the ids of rows that were trained one by one; each of them must still be there."""
    value = settings.get("trainable_token_indices")
    lists = value if isinstance(value, dict) else {"": value} if isinstance(value, list) else {}
    for key, ids in lists.items():
        if not (isinstance(ids, list) and all(type(token) is int for token in ids)):
            message = "the adapter's `trainable_token_indices` are no ids"
            raise InputError("adapter-format", message, "save it again with peft's save_pretrained")
        gone = [token for token in ids if token not in new_of]
        if gone:
            raise InputError(
                "unmapped-row",
                f"the adapter has trained a row for the id {gone[0]}, and the trimmed model has dropped it",
                "trim the model again with --keep-token for the tokens that the adapter has trained",
            )
        translated = [new_of[token] for token in ids]
        if isinstance(value, dict):
            value[key] = translated
        else:
            settings["trainable_token_indices"] = translated
