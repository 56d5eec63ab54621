"""Copies of models in memory, with another vocabulary. Nothing is written to a disk."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tokswap.checkpoint.edit import Edit, MatrixEdit
from tokswap.checkpoint.layout import Layout
from tokswap.checkpoint.loaded import DTYPES, tied_names
from tokswap.checkpoint.nested_configs import configs, id_role
from tokswap.checkpoint.reader import Checkpoint
from tokswap.checkpoint.writer import RowsOnce, Solve, changed_tensor, matrix_blocks

if TYPE_CHECKING:
    from torch import Tensor, nn

_OF_THE_WEIGHTS = ("dtype", "torch_dtype")
"""Keys of config.json that a config object in memory may hold as another type."""


def rebuilt_model(model: Any, edit: Edit, layout: Layout, solve: Solve) -> Any:
    """Return a copy of a loaded model with the vocabulary of an edit.

    The original stays as it is. Tensors that do not change lie in the same memory in both models, in parameters of
    their own: moving or casting the copy, or freezing it, does not touch the original, and training in place does.

    Args:
        model: The model that `edit.checkpoint` is a view of.
        edit: What to change.
        layout: Its layout, from `lay_out`.
        solve: Computes the rows of a group of matrices.
    """
    new = copy.deepcopy(model, {id(parameter): _alias(parameter) for parameter in model.parameters()})
    before = json.loads(model.config.to_json_string())
    _update_configs(new, before, edit.configs.model)
    _update_ids(new, before, edit.configs.model)
    tied = tied_names(model)
    rows_of = RowsOnce(edit, layout, solve)
    pad = new.config.get_text_config().pad_token_id
    for tensor in (tensor for shard in layout.shards for tensor in shard.tensors):
        if tensor.edit is not None:
            values = _values(edit.checkpoint, tensor.edit, rows_of)
        elif tensor.name in edit.changed:
            values = _tensor([changed_tensor(edit, tensor.name)], tensor.dtype, tensor.shape)
        else:
            continue
        names = [tensor.name, *(name for name in tied.get(tensor.name, ()) if name not in _written(edit))]
        _set_tensor(new, names, values)
        for name in names:
            _fit_module(new, name, pad)
    _drop_heads(new, edit, pad)
    _update_sizes(new, edit)
    _update_generation(new, edit)
    return new


def _alias(parameter: Any) -> Any:
    """Return another parameter in the same memory; a special kind, such as a quantised one, is shared."""
    from torch import nn

    if type(parameter) is not nn.Parameter:
        return parameter
    alias = nn.Parameter(parameter.detach(), parameter.requires_grad)
    vars(alias).update(vars(parameter))
    return alias


def _written(edit: Edit) -> set[str]:
    return {name for matrix in edit.matrices for name in matrix.names}


def _values(checkpoint: Checkpoint, edit: MatrixEdit, rows_of: RowsOnce) -> Tensor:
    """A whole matrix in its dtype."""
    return _tensor(list(matrix_blocks(checkpoint, edit, rows_of(edit))), edit.matrix.dtype, edit.shape)


def _tensor(blocks: list[np.ndarray], dtype: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor of raw rows in blocks."""
    import torch

    raw = torch.from_numpy(np.concatenate(blocks).reshape(-1))
    name = next(name for name, short in DTYPES.items() if short == dtype).removeprefix("torch.")
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


def _drop_heads(model: Any, edit: Edit, pad: int | None) -> None:
    """Tie the matrices that the result no longer has to the input embeddings."""
    gone = {name for matrix in edit.checkpoint.matrices for name in matrix.names} - _written(edit)
    if gone:
        shared = model.get_input_embeddings().weight
        for name in gone:
            path, _, leaf = name.rpartition(".")
            model.get_submodule(path)._parameters[leaf] = shared
            _fit_module(model, name, pad)


def _fit_module(model: Any, name: str, pad: int | None) -> None:
    """Correct what the module of a changed matrix remembers of its shape and of the pad token."""
    from torch import nn

    module = model.get_submodule(name.rpartition(".")[0])
    if isinstance(module, nn.Embedding):
        module.num_embeddings = module.weight.shape[0]
        if module.padding_idx is not None:
            module.padding_idx = pad if pad is not None and pad < module.num_embeddings else None
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape


def _update_configs(model: Any, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Set what has changed on every config of a model: T5's encoder and decoder have copies of their own."""
    done: set[int] = set()
    _update_config(model.config, before, after, done)
    for module in model.modules():
        config = vars(module).get("config")
        if hasattr(config, "to_dict") and id(config) not in done:
            same = {key: value for key, value in before.items() if getattr(config, key, None) == value}
            _update_config(config, same, {key: after[key] for key in same if key in after}, done)


def _update_ids(model: Any, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Correct the ids that modules remember: CLIP's text model that of eos, Reformer that of pad."""
    from torch import nn

    now = dict(configs(after))
    new_of = {
        (key, old): new
        for path, child in configs(before)
        for key, old in child.items()
        if id_role(key) is not None and type(old) is int and type(new := now.get(path, {}).get(key)) is int
    }
    keys = {key for key, _ in new_of}
    for module in model.modules():
        if isinstance(module, nn.Embedding):  # see `_fit_module`
            continue
        for name, value in list(vars(module).items()):
            meant = "pad_token_id" if name == "padding_idx" else name
            key = max((key for key in keys if meant.endswith(key)), key=len, default="")  # BLIP: decoder_pad_token_id
            if type(value) is int and (key, value) in new_of:
                setattr(module, name, new_of[key, value])


def _update_config(config: Any, before: Mapping[str, Any], after: Mapping[str, Any], done: set[int]) -> None:
    """Set what has changed between two parsed configs on a config object, at every level."""
    done.add(id(config))
    for key, value in after.items():
        child = getattr(config, key, None)
        nested = isinstance(value, Mapping) and hasattr(child, "to_dict")
        if nested:
            _update_config(child, before.get(key, {}), value, done)
        elif key not in _OF_THE_WEIGHTS and (key not in before or before[key] != value):
            setattr(config, key, value)


def _update_generation(model: Any, edit: Edit) -> None:
    """Give a model the generation config of the result, or the one that follows from its config."""
    if getattr(model, "generation_config", None) is None:
        return
    if edit.configs.generation:
        _update_config(model.generation_config, edit.checkpoint.generation_config, edit.configs.generation, set())
        model.generation_config._from_model_config = False
    elif model.generation_config._from_model_config:
        from transformers import GenerationConfig

        model.generation_config = GenerationConfig.from_model_config(model.config)


def _update_sizes(model: Any, edit: Edit) -> None:
    """Correct the vocabulary size that modules remember."""
    old, rows = edit.checkpoint.matrices[0].rows, len(edit.matrices[0].source_of)
    for module in model.modules():
        if vars(module).get("vocab_size") == old:
            module.vocab_size = rows
