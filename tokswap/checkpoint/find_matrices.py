"""Finds the vocabulary matrices of a model. Pure: tensor names, shapes and the config only.

Names come from `matrices`, sizes from the config. A tensor with a vocabulary-sized axis that is neither known by its
name nor explained by the config stops the run: leaving it as it is would silently break the model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokswap.checkpoint.facts import model_facts
from tokswap.checkpoint.matrices import FLOATS, INTEGERS, VocabMatrix, head_name, role_by_name, role_of
from tokswap.checkpoint.nested_configs import configs, id_role, other_parts, text_config
from tokswap.checkpoint.ties import head_as_input, join_copies, mark_head
from tokswap.errors import InputError

_PACKED = re.compile(r"(^|\.)(lm_head|embed_out|embed_tokens|wte|word_embeddings|embed_in)$")
"""Modules that hold a vocabulary matrix and nothing else."""
Tensors = Mapping[str, tuple[str, tuple[int, ...]]]
"""Tensor name -> dtype and shape."""


def find_matrices(
    folder: Path | str,
    config: Mapping[str, Any],
    tensors: Tensors,
    same_bytes: Callable[[str, str], bool],
) -> tuple[VocabMatrix, ...]:
    """Find the vocabulary matrices of a model.

    Args:
        folder: Where the model is, for messages.
        config: config.json, parsed.
        tensors: All tensors of the model.
        same_bytes: Compares two tensors by name. It is called only for tensors of equal shape that may be tied.

    Returns:
        The matrices; copies of one matrix are joined, and input embeddings come first.

    Raises:
        InputError: bad-config, two-vocabularies, unknown-vocab-tensor, quantised-table, vocab-size-mismatch,
            no-embedding.
    """
    _, text = text_config(config, folder)
    size, facts = text["vocab_size"], model_facts(config)
    sizes = {size} | {value for key, value in text.items() if key == "vocab_size_per_layer_input"}
    found: list[VocabMatrix] = []
    others = other_parts(config, size)
    for name, (dtype, shape) in tensors.items():
        if not others.isdisjoint(name.split(".")):
            continue
        role = role_of(name, shape, sizes)
        if role is not None:
            if dtype not in (INTEGERS if role == "lookup" else FLOATS):
                raise _quantised(folder, name, dtype, shape)
            axis = 1 if shape[0] == 1 and len(shape) == 2 else 0
            found.append(VocabMatrix(names=(name,), role=role, dtype=dtype, shape=shape, axis=axis))
        elif size in shape and not explained(config, size):
            raise _unknown(folder, name, dtype, shape, size)
    _check_packed(folder, found, tensors)
    if not _candidates(tensors):
        found = head_as_input(found, facts)
    if not any(matrix.role == "input" for matrix in found):
        raise _no_embedding(folder, tensors, size)
    _check_heads(folder, found, tensors, size)
    return mark_head(join_copies(found, facts, same_bytes), facts)


def explained(config: Mapping[str, Any], size: int) -> bool:
    """Return whether another number of the config equals the vocabulary size. Such an axis then proves nothing."""
    return any(
        type(value) is int and value == size and "vocab" not in key and id_role(key) is None
        for _, child in configs(config)
        for key, value in child.items()
    )


def _check_packed(folder: Path | str, found: Sequence[VocabMatrix], tensors: Tensors) -> None:
    """Refuse input embeddings and lm_heads that are stored as other tensors than a matrix, in any shape (HQQ)."""
    whole = {matrix.names[0].rpartition(".")[0] for matrix in found if matrix.role != "bias"}
    for name, (dtype, shape) in tensors.items():
        module, _, leaf = name.rpartition(".")
        if _PACKED.search(module) and module not in whole and leaf not in ("weight", "bias"):
            raise _quantised(folder, name, dtype, shape)


def _check_heads(folder: Path | str, found: Sequence[VocabMatrix], tensors: Tensors, size: int) -> None:
    """Refuse an lm_head with another number of rows than its input embeddings, which `role_of` has not recognised."""
    known = {matrix.names[0] for matrix in found}
    for matrix in found:
        name = head_name(matrix) if matrix.role == "input" else None
        if name is not None and name in tensors and name not in known:
            dtype, shape = tensors[name]
            raise _mismatch(folder, name, shape, size) if dtype in FLOATS else _quantised(folder, name, dtype, shape)


def _candidates(tensors: Tensors) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the tensors that are input embeddings by name, whatever their size."""
    return {
        name: tensors[name]
        for name, (_, shape) in tensors.items()
        if len(shape) == 2 and role_by_name(name) == "input" and "position" not in name and "token_type" not in name
    }


def _no_embedding(folder: Path | str, tensors: Tensors, size: int) -> InputError:
    """Say why a model has no input embeddings of the size that its config names."""
    candidates = _candidates(tensors)
    packed = [name for name, (dtype, _) in candidates.items() if dtype not in FLOATS]
    if packed:
        return _quantised(folder, packed[0], *tensors[packed[0]])
    if not candidates:
        return InputError("no-embedding", "no input embeddings were found in the weights", folder=folder)
    name = max(candidates, key=lambda name: candidates[name][1][0])
    shape = candidates[name][1]
    has_head = any(role_of(other, its, {size}) == "output" for other, (_, its) in tensors.items())
    return (
        _more_rows(folder, name, shape[0], size)
        if shape[0] > size and has_head
        else _mismatch(folder, name, shape, size)
    )


def _unknown(folder: Path | str, name: str, dtype: str, shape: tuple[int, ...], size: int) -> InputError:
    if role_of(name.rpartition(".")[0] + ".weight", (size, 1), {size}) is not None:
        return _quantised(folder, name, dtype, shape)  # scales or packed bits in the place of a matrix
    wrapped = re.search(r"\.(original_module|modules_to_save|base_layer|token_adapter|parametrizations)\.", name)
    return InputError(
        "unknown-vocab-tensor",
        f"the tensor {name} has an axis of the vocabulary's size, and tokswap does not know what it is",
        "merge the adapter first (`merge_and_unload()` of PEFT), or remove the parametrization"
        if wrapped
        else "leaving it as it is would break the model; please report the architecture",
        folder=folder,
        shape=list(shape),
        vocab_size=size,
    )


def _quantised(folder: Path | str, name: str, dtype: str, shape: tuple[int, ...]) -> InputError:
    return InputError(
        "quantised-table",
        f"the vocabulary matrix {name} is quantised ({dtype}), so single rows cannot be copied or computed",
        "start from the checkpoint before quantisation, and quantise the result",
        folder=folder,
        shape=list(shape),
    )


def _mismatch(folder: Path | str, name: str, shape: tuple[int, ...], size: int) -> InputError:
    return InputError(
        "vocab-size-mismatch",
        f"config.json says vocab_size {size:,}, and {name} has {shape[0] if shape else 0:,} rows",
        "correct the config, or resize the model's embeddings, so that both agree",
        folder=folder,
    )


def _more_rows(folder: Path | str, name: str, rows: int, size: int) -> InputError:
    return InputError(
        "vocab-size-mismatch",
        f"{name} has {rows:,} rows, and the lm_head and config.json have {size:,}: "
        "the others are input-only tokens such as image placeholders",
        "tokswap does not know what these rows are for, so it supports no model of this kind",
        folder=folder,
    )
