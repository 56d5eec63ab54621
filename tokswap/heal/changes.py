"""What a healing writes: the trained vocabulary matrices, and the tensors of the body that changed, by their names."""

from __future__ import annotations

from collections.abc import Mapping
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
    trained: dict[str, MatrixEdit] = {
        one.role: _computed(one, student.new) for one in checkpoint.matrices if one.role in _TRAINED
    }
    matrices = tuple(trained.get(one.role, _kept(one)) for one in checkpoint.matrices)
    rows = _matrix_rows(student, trained)
    own = Configs(checkpoint.config, checkpoint.generation_config, tokenizer.config)
    files = result_files(checkpoint, tokenizer, own, own=True, trust_remote_code=trust_remote_code)
    map_file = checkpoint.folder / MAP_NAME  # healing changes no id, so what a trim or extension says still holds
    kept = {MAP_NAME: map_file} if map_file.is_file() else {}
    changed = body_changes(student, checkpoint)
    edit = Edit(checkpoint, matrices, files.configs, files={**files.files, **kept}, changed=changed)

    def solve(group: tuple[MatrixEdit, ...]) -> GroupRows:
        return {one.name: rows.get(one.name, np.zeros((0, one.matrix.width), np.float32)) for one in group}

    return edit, solve


_TRAINED = ("input", "output")


def _computed(matrix: VocabMatrix, new: np.ndarray | None) -> MatrixEdit:
    """A matrix whose rows are written anew, all of them or only some."""
    source_of = np.arange(matrix.rows, dtype=np.int32)
    source_of[slice(None) if new is None else new] = -1
    return MatrixEdit(matrix, matrix.names, source_of)


def _kept(matrix: VocabMatrix) -> MatrixEdit:
    return MatrixEdit(matrix, matrix.names, np.arange(matrix.rows, dtype=np.int32))


def _matrix_rows(student: Student, trained: Mapping[str, MatrixEdit]) -> dict[str, np.ndarray]:
    """Return the trained rows of each matrix, float32 [n, D], by the name of its edit."""
    causal = student.causal
    weights = {"input": causal.get_input_embeddings().weight, "output": causal.get_output_embeddings().weight}
    rows = slice(None) if student.new is None else torch.from_numpy(student.new)
    return {edit.name: weights[role].detach()[rows].float().cpu().numpy() for role, edit in trained.items()}


def body_changes(student: Student, checkpoint: Checkpoint) -> dict[str, Convert]:
    """Return the tensors of the body that changed -> their new numbers from the old ones.

    Raises:
        InputError: cannot-merge.
    """
    found: dict[str, Convert] = {}
    if student.adapted is not None:
        from peft.tuners.lora import LoraLayer

        layers = {name: one for name, one in student.causal.named_modules() if isinstance(one, LoraLayer)}
        found = {f"{name}.weight": _adapted(layer) for name, layer in layers.items()}
    elif student.full:
        vocabulary = {id(one) for one in student.matrices()}
        body = {name: one for name, one in student.causal.named_parameters() if id(one) not in vocabulary}
        found = {name: _replaced(one) for name, one in body.items()}
    missing = sorted(set(found) - set(checkpoint.tensors))
    if missing:
        raise InputError(
            "cannot-merge",
            f"the files of this model have no tensor {missing[0]}: transformers builds it from others when it loads",
            "write the changes beside the model with --save adapter",
            model=checkpoint.folder,
        )
    return found


def _adapted(layer: Any) -> Convert:
    def change(old: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            delta = layer.get_delta_weight("default").float().cpu().numpy()
        return np.asarray(old + delta, np.float32)

    return change


def _replaced(weight: torch.Tensor) -> Convert:
    return lambda old: weight.detach().float().cpu().numpy()
