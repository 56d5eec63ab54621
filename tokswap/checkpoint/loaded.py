"""Models that are in memory: read as checkpoints, and copied with another vocabulary. Nothing is written to a disk."""

from __future__ import annotations

import contextlib
import copy
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokswap.checkpoint.edit import Edit, MatrixEdit
from tokswap.checkpoint.layout import Layout
from tokswap.checkpoint.reader import Checkpoint
from tokswap.checkpoint.shards import Shard, TensorInfo
from tokswap.checkpoint.writer import RowsOnce, Solve, changed_tensor, matrix_blocks
from tokswap.errors import InputError, UsageError
from tokswap.storage.resolve import resolve_model
from tokswap.tokenizer.auto import auto_tokenizer
from tokswap.tokenizer.loaded import is_tokenizer

if TYPE_CHECKING:
    from torch import Tensor, nn

_FILE = "model.safetensors"
_DTYPES = {
    "torch.float64": "F64",
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.int64": "I64",
    "torch.int32": "I32",
    "torch.int16": "I16",
    "torch.int8": "I8",
    "torch.uint8": "U8",
    "torch.bool": "BOOL",
    "torch.float8_e4m3fn": "F8_E4M3",
    "torch.float8_e5m2": "F8_E5M2",
}


@dataclass(frozen=True)
class Loaded:
    """A transformers model in memory and its tokenizer. A tuple `(model, tokenizer)` means the same."""

    model: Any
    tokenizer: Any


ModelLike = str | Path | Loaded | tuple[Any, Any] | Any
"""A folder, hub id, alias or .gguf file; or a loaded model with its tokenizer: `Loaded`, a tuple of both, or a model
whose `name_or_path` has the tokenizer."""


def as_loaded(model: ModelLike, *, trust_remote_code: bool = False) -> Loaded | None:
    """Return a loaded model with its tokenizer, None for a name.

    Raises:
        UsageError: bad-model for anything else; missing-tokenizer where a model comes without its tokenizer.
    """
    if isinstance(model, (str, Path)):
        return None
    if isinstance(model, Loaded):
        return model
    if isinstance(model, tuple) and len(model) == 2 and _is_model(model[0]) and is_tokenizer(model[1]):
        return Loaded(*model)
    if isinstance(model, tuple) or not _is_model(model):
        message = f"this is no model: {type(model).__name__}"
        raise UsageError("bad-model", message, "give a name, a Path, or (model, tokenizer)")
    try:
        return Loaded(model, auto_tokenizer(Path(model.name_or_path), trust_remote_code=trust_remote_code))
    except InputError as error:
        message = "the model is loaded, and its tokenizer is not known"
        raise UsageError("missing-tokenizer", message, "give both: (model, tokenizer)") from error


def load_folder(folder: Path) -> tuple[Any, Any]:
    """Load a model folder with the class that its config names, and its tokenizer."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    cls = getattr(transformers, (config.architectures or ["AutoModel"])[0], transformers.AutoModel)
    return cls.from_pretrained(folder, dtype="auto"), auto_tokenizer(folder)


@contextlib.contextmanager
def as_folder(model: ModelLike) -> Iterator[Path]:
    """Give the folder of a model; one that is in memory is saved to a temporary folder that vanishes at the end."""
    loaded = as_loaded(model)
    if loaded is None:
        yield resolve_model(str(model))
        return
    with tempfile.TemporaryDirectory(prefix="tokswap-") as folder:
        loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
        yield Path(folder)


def loaded_checkpoint(model: Any) -> Checkpoint:
    """Return a view of a loaded model as a checkpoint. Its tensors stay where they are; tied ones appear once.

    Raises:
        InputError: not-loaded where a tensor is on no device (`meta`).
    """
    state = _distinct(model)
    infos, at = [], 0
    for name, tensor in state.items():
        if tensor.device.type == "meta":
            raise InputError("not-loaded", f"the tensor {name} is not in memory", "load the model without offloading")
        dtype = _DTYPES.get(str(tensor.dtype), str(tensor.dtype))
        size = tensor.numel() * tensor.element_size()
        infos.append(TensorInfo(name, dtype, tuple(tensor.shape), file=_FILE, start=at, end=at + size))
        at += size
    config = json.loads(model.config.to_json_string())
    config.setdefault("architectures", [type(model).__name__])
    config.pop("transformers_weights", None)  # names a file of the folder that the model was loaded from
    shard = Shard(Path(_FILE), tuple(infos), {"format": "pt"}, size=at)
    return Checkpoint(
        folder=Path(model.name_or_path or "loaded model"),
        config=config,
        generation_config=_generation_of(model),
        shards=(shard,),
        tensors={info.name: info for info in infos},
        memory=state,
    )


def rebuilt_model(model: Any, edit: Edit, layout: Layout, solve: Solve) -> Any:
    """Return a copy of a loaded model with the vocabulary of an edit.

    Tensors that do not change are shared with the original, which stays as it is.

    Args:
        model: The model that `edit.checkpoint` is a view of.
        edit: What to change.
        layout: Its layout, from `lay_out`.
        solve: Computes the rows of a group of matrices.
    """
    kept = [*model.parameters(), *model.buffers()]
    new = copy.deepcopy(model, {id(tensor): tensor for tensor in kept})
    _update_config(new.config, edit.checkpoint.config, edit.configs.model)
    tied = _tied_names(model)
    rows_of = RowsOnce(edit, layout, solve)
    for tensor in (tensor for shard in layout.shards for tensor in shard.tensors):
        if tensor.edit is not None:
            values = _values(edit.checkpoint, tensor.edit, rows_of)
        elif tensor.name in edit.changed:
            values = _tensor([changed_tensor(edit, tensor.name)], tensor.dtype, tensor.shape)
        else:
            continue
        own = [name for name in tied.get(tensor.name, ()) if name not in _written(edit)]
        _set_tensor(new, [tensor.name, *own], values)
    _drop_heads(new, edit)
    _update_sizes(new, edit)
    _update_generation(new, edit)
    return new


def _is_model(value: Any) -> bool:
    return hasattr(value, "state_dict") and hasattr(value, "config")


def _distinct(model: Any) -> dict[str, Tensor]:
    """The state of a model without the second names of tied tensors."""
    seconds = {name for names in _tied_names(model).values() for name in names}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in seconds}


def _tied_names(model: Any) -> dict[str, list[str]]:
    """The first name of each tied tensor, and its other names."""
    first: dict[tuple[int, tuple[int, ...]], str] = {}
    others: dict[str, list[str]] = {}
    for name, tensor in model.state_dict().items():
        if not tensor.numel():
            continue
        key = (tensor.data_ptr(), tuple(tensor.shape))
        if key in first:
            others.setdefault(first[key], []).append(name)
        else:
            first[key] = name
    return others


def _written(edit: Edit) -> set[str]:
    return {name for matrix in edit.matrices for name in matrix.names}


def _values(checkpoint: Checkpoint, edit: MatrixEdit, rows_of: RowsOnce) -> Tensor:
    """A whole matrix in its dtype."""
    return _tensor(list(matrix_blocks(checkpoint, edit, rows_of(edit))), edit.matrix.dtype, edit.shape)


def _tensor(blocks: list[np.ndarray], dtype: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor of raw rows in blocks."""
    import torch

    raw = torch.from_numpy(np.concatenate(blocks).reshape(-1))
    name = next(name for name, short in _DTYPES.items() if short == dtype).removeprefix("torch.")
    return raw.view(getattr(torch, name)).reshape(shape)


def _set_tensor(model: Any, names: list[str], values: Tensor) -> None:
    """Put one tensor in the place of parameters or buffers; all names share it."""
    from torch import nn

    parameter = None
    for name in names:
        path, _, leaf = name.rpartition(".")
        parent: nn.Module = model.get_submodule(path)
        if leaf in parent._parameters:
            old = parent._parameters[leaf]
            assert old is not None
            parameter = parameter if parameter is not None else nn.Parameter(values.to(old.device), old.requires_grad)
            parent._parameters[leaf] = parameter
        else:
            buffer = parent._buffers[leaf]
            parent._buffers[leaf] = values if buffer is None else values.to(buffer.device)


def _drop_heads(model: Any, edit: Edit) -> None:
    """Tie the matrices that the result no longer has to the input embeddings."""
    gone = {name for matrix in edit.checkpoint.matrices for name in matrix.names} - _written(edit)
    if gone:
        shared = model.get_input_embeddings().weight
        for name in gone:
            path, _, leaf = name.rpartition(".")
            model.get_submodule(path)._parameters[leaf] = shared


def _update_config(config: Any, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Set what has changed between two parsed configs on a config object, at every level."""
    for key, value in after.items():
        if key in before and before[key] == value:
            continue
        child = getattr(config, key, None)
        if isinstance(value, Mapping) and hasattr(child, "to_dict"):
            _update_config(child, before.get(key, {}), value)
        else:
            setattr(config, key, value)


def _generation_of(model: Any) -> dict[str, Any]:
    """Return the generation config of a model, {} where it has none but that which follows from its config."""
    from transformers import GenerationConfig

    own = getattr(model, "generation_config", None)
    if own is None:
        return {}
    settings = own.to_dict()
    if settings.pop("_from_model_config", own._from_model_config):  # true still where the user has changed it since
        follows = GenerationConfig.from_model_config(model.config).to_dict()
        if all(value is None or follows.get(key) == value for key, value in settings.items()):
            return {}
    return {key: value for key, value in json.loads(own.to_json_string()).items() if key != "_from_model_config"}


def _update_generation(model: Any, edit: Edit) -> None:
    """Give a model the generation config of the result, or the one that follows from its config."""
    if getattr(model, "generation_config", None) is None:
        return
    if edit.configs.generation:
        _update_config(model.generation_config, edit.checkpoint.generation_config, edit.configs.generation)
        model.generation_config._from_model_config = False
    elif model.generation_config._from_model_config:
        from transformers import GenerationConfig

        model.generation_config = GenerationConfig.from_model_config(model.config)


def _update_sizes(model: Any, edit: Edit) -> None:
    """Correct the sizes that modules remember."""
    from torch import nn

    old, rows = edit.checkpoint.matrices[0].rows, len(edit.matrices[0].source_of)
    pad = model.config.get_text_config().pad_token_id
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.num_embeddings = module.weight.shape[0]
            if module.padding_idx is not None:
                module.padding_idx = pad if pad is not None and pad < module.num_embeddings else None
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
        if vars(module).get("vocab_size") == old:
            module.vocab_size = rows
