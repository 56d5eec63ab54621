"""Model folders of hand-made weight files, right and wrong, for tests of what reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokswap.checkpoint.reader import Checkpoint, open_checkpoint
from tokswap.errors import InputError

CONFIG = {"architectures": ["LlamaForCausalLM"], "vocab_size": 12, "hidden_size": 4, "tie_word_embeddings": False}


def safetensors(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """The bytes of a safetensors file with any header, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def folder_with(folder: Path, weights: bytes, config: object = CONFIG) -> Path:
    """A checkpoint of one file."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def two_shards(folder: Path, **index: Any) -> Path:
    """A whole checkpoint of two files; `index` overrides keys of its index."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    first = {"model.embed_tokens.weight": torch.randn(12, 4), "model.norm.weight": torch.randn(4)}
    second = {"lm_head.weight": torch.randn(12, 4)}
    save_file(first, folder / "model-00001-of-00002.safetensors", {"format": "pt"})
    save_file(second, folder / "model-00002-of-00002.safetensors", {"format": "pt"})
    weight_map = dict.fromkeys(first, "model-00001-of-00002.safetensors")
    weight_map |= dict.fromkeys(second, "model-00002-of-00002.safetensors")
    body = {"metadata": {"total_size": 400}, "weight_map": weight_map, **index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(body))
    return folder


def code_of(call: Callable[..., object], *arguments: object) -> str:
    """The code of the error that a call must raise."""
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return caught.value.code


def checkpoint_or_code(folder: Path) -> Checkpoint | str:
    """What opening a folder gives, or the code of its error."""
    try:
        return open_checkpoint(folder)
    except InputError as error:
        return error.code
