"""A description of a checkpoint or a tokenizer, as plain data."""

from __future__ import annotations

from dataclasses import asdict
from math import prod
from typing import Any

from tokswap.checkpoint.loaded import ModelLike, as_loaded, loaded_checkpoint
from tokswap.checkpoint.reader import Checkpoint, has_weights, open_checkpoint
from tokswap.options.kinds import typed
from tokswap.storage.resolve import resolve_tokenizer
from tokswap.tokenizer.describe import describe_tokenizer
from tokswap.tokenizer.loaded import read_loaded
from tokswap.tokenizer.tokenizer import read_tokenizer


@typed
def inspect_checkpoint(model: ModelLike) -> dict[str, Any]:
    """Describe a model or a tokenizer without reading a weight.

    Args:
        model: A model or tokenizer: a folder, hub id, alias, .gguf file or tokenizer.json, or a loaded model with its
            tokenizer.

    Returns:
        Plain data under "path" and "tokenizer"; for a model also under "model" and "tables".

    Raises:
        InputError: where the files are missing or damaged; see `open_checkpoint` and `read_tokenizer`.
    """
    loaded = as_loaded(model)
    if loaded is not None:
        checkpoint: Checkpoint | None = loaded_checkpoint(loaded.model)
        path, tokenizer = loaded_checkpoint(loaded.model).folder, read_loaded(loaded.tokenizer)
    else:
        path = resolve_tokenizer(str(model))
        checkpoint = open_checkpoint(path) if path.is_dir() and has_weights(path) else None
        tokenizer = read_tokenizer(path)
    result: dict[str, Any] = {"path": str(path)}
    if checkpoint is not None:
        result["model"] = _model(checkpoint)
        result["tables"] = [
            asdict(matrix)
            | {"rows": matrix.rows, "width": matrix.width, "padding": matrix.rows - len(tokenizer.vocabulary)}
            for matrix in checkpoint.matrices
        ]
    return result | {"tokenizer": describe_tokenizer(tokenizer)}


def _model(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "architecture": checkpoint.facts.architecture,
        "parameters": sum(prod(info.shape) for info in checkpoint.tensors.values()),
        "bytes": checkpoint.nbytes,
        "shards": len(checkpoint.shards),
        "tied": checkpoint.tied,
    }
