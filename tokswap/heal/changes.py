"""What a healing writes: the trained vocabulary matrices, and the tensors of the body that changed, by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from tokswap.checkpoint.configs import Configs
from tokswap.checkpoint.edit import Convert, Edit, GroupRows, MatrixEdit
from tokswap.checkpoint.matrices import VocabMatrix
from tokswap.checkpoint.reader import Checkpoint
from tokswap.checkpoint.result_files import MAP_NAME, result_files
from tokswap.checkpoint.source import SourceModel
from tokswap.checkpoint.writer import Solve
from tokswap.errors import InputError
from tokswap.heal.file_names import Compute, as_in_files
from tokswap.heal.student import Student


def changed_edit(source: SourceModel, student: Student, *, trust_remote_code: bool) -> tuple[Edit, Solve]:
    """Return what to write of a healed model, and what computes its rows.

    Args:
        source: The model before.
        student: The model after.
        trust_remote_code: Whether to carry over the model's Python code.

    Raises:
        InputError: cannot-merge where a trained weight has no tensor in the files.
    """
    checkpoint, tokenizer = source.checkpoint, source.tokenizer
    changed = body_changes(student, checkpoint)
    tables = [one for one in checkpoint.matrices if one.role not in _TRAINED and one.names[0] in changed]
    of_body = {one.names[0]: changed.pop(one.names[0]) for one in tables}  # per-layer embeddings
    trained = own_matrices(student, checkpoint)
    edits = {id(one): _computed(one, student.new) for one in trained} | {
        id(one): _computed(one, None) for one in tables
    }
    matrices = tuple(edits.get(id(one), _kept(one)) for one in checkpoint.matrices)
    rows = _matrix_rows(student, [edits[id(one)] for one in trained])
    own = Configs(checkpoint.config, checkpoint.generation_config, tokenizer.config)
    files = result_files(checkpoint, tokenizer, own, own=True, trust_remote_code=trust_remote_code)
    map_file = checkpoint.folder / MAP_NAME  # healing changes no id, so what a trim or extension says still holds
    more = {MAP_NAME: map_file} if map_file.is_file() else {}
    edit = Edit(checkpoint, matrices, files.configs, files={**files.files, **more}, changed=changed)

    def solve(group: tuple[MatrixEdit, ...]) -> GroupRows:
        none = {one.name: np.zeros((0, one.matrix.width), np.float32) for one in group}
        body = {one.name: of_body[one.name](none[one.name]) for one in group if one.name in of_body}
        return {name: body.get(name, rows.get(name, none[name])) for name in none}

    return edit, solve


_TRAINED = ("input", "output")


def own_matrices(student: Student, checkpoint: Checkpoint) -> list[VocabMatrix]:
    """Return the input embeddings and the lm_head that the model reads.

    Its files may hold more of them, which transformers does not load: those of layers that predict further tokens
    (`model.layers.61.shared_head.head`). They keep their rows, unless they are copies.
    """
    own = {id(weight) for weight in student.matrices()}
    weights = student.causal.named_parameters(remove_duplicate=False)
    names: Mapping[str, Compute] = {name: weight.detach for name, weight in weights if id(weight) in own}
    if checkpoint.memory is None:
        names = as_in_files(student.causal, names, checkpoint.tensors)
    return [one for one in checkpoint.matrices if one.role in _TRAINED and not names.keys().isdisjoint(one.names)]


def _computed(matrix: VocabMatrix, new: np.ndarray | None) -> MatrixEdit:
    """A matrix whose rows are written anew, all of them or only some."""
    source_of = np.arange(matrix.rows, dtype=np.int32)
    source_of[slice(None) if new is None else new] = -1
    return MatrixEdit(matrix, matrix.names, source_of)


def _kept(matrix: VocabMatrix) -> MatrixEdit:
    return MatrixEdit(matrix, matrix.names, np.arange(matrix.rows, dtype=np.int32))


def _matrix_rows(student: Student, trained: Sequence[MatrixEdit]) -> dict[str, np.ndarray]:
    """Return the trained rows of each matrix, float32 [n, D], by the name of its edit."""
    causal = student.causal
    weights = {"input": causal.get_input_embeddings().weight, "output": causal.get_output_embeddings().weight}
    rows = slice(None) if student.new is None else torch.from_numpy(student.new)
    return {one.name: weights[one.matrix.role].detach()[rows].float().cpu().numpy() for one in trained}


def body_changes(student: Student, checkpoint: Checkpoint) -> dict[str, Convert]:
    """Return the tensors of the body that changed -> their new numbers from the old ones.

    Raises:
        InputError: cannot-merge.
    """
    trained = _added(student) if student.adapted is not None else _replaced(student) if student.full else {}
    if trained and checkpoint.memory is None:
        trained = as_in_files(student.causal, trained, checkpoint.tensors)
    written = {name: one for name, one in trained.items() if name in checkpoint.tensors}
    same = {id(one) for one in written.values()}
    missing = sorted(name for name, one in trained.items() if id(one) not in same)
    if missing:
        raise InputError(
            "cannot-merge",
            f"the files of this model have no tensor {missing[0]}, which was trained",
            "write the changes beside the model with --save adapter",
            model=checkpoint.folder,
        )
    return {name: _convert(one, added=student.adapted is not None) for name, one in written.items()}


def _added(student: Student) -> dict[str, Compute]:
    """Return what the adapter adds to each weight. Layers that the model never ran have learnt nothing."""
    from peft.tuners.lora import LoraLayer

    layers: dict[str, Any] = {name: one for name, one in student.causal.named_modules() if isinstance(one, LoraLayer)}
    return {
        f"{name}.weight": partial(layer.get_delta_weight, "default")
        for name, layer in layers.items()
        if bool(layer.lora_B["default"].weight.any())
    }


def _replaced(student: Student) -> dict[str, Compute]:
    """Return the weights of the body that learn, by all their names; the files have one of those of a shared weight."""
    vocabulary = {id(one) for one in student.matrices()}
    found: dict[int, Compute] = {}
    names: dict[str, Compute] = {}
    for name, one in student.causal.named_parameters(remove_duplicate=False):
        if one.requires_grad and id(one) not in vocabulary:
            names[name] = found.setdefault(id(one), one.detach)
    return names


def _convert(compute: Compute, *, added: bool) -> Convert:
    def change(old: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            new = compute().float().cpu().numpy()
        return np.asarray(old + new if added else new, np.float32)

    return change
