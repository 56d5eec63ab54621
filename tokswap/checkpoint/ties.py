"""Which tensors are one vocabulary matrix: copies of each other, or input embeddings that are the lm_head too."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from tokswap.checkpoint.facts import ModelFacts
from tokswap.checkpoint.matrices import Role, VocabMatrix

_ORDER: tuple[Role, ...] = ("input", "per-layer", "output", "bias", "lookup")


def join_copies(
    matrices: Sequence[VocabMatrix], facts: ModelFacts, same_bytes: Callable[[str, str], bool]
) -> list[VocabMatrix]:
    """Join matrices that hold the same bytes.

    Input embeddings and a stored lm_head with equal bytes are one tied matrix, unless the config says that they are not
    tied.

    Args:
        matrices: One matrix per tensor.
        facts: What the config says about ties.
        same_bytes: Compares two tensors by name. It is called only where dtype and shape are equal.

    Returns:
        The matrices in the order of their roles, input embeddings first; those that the model reads come first of each.
    """
    groups: list[VocabMatrix] = []
    for matrix in sorted(matrices, key=lambda matrix: (_ORDER.index(matrix.role), matrix.further)):
        for n, group in enumerate(groups):
            tie = {group.role, matrix.role} == {"input", "output"}
            may_join = group.role == matrix.role or (tie and facts.tied is not False)
            alike = (group.dtype, group.shape) == (matrix.dtype, matrix.shape)
            if may_join and alike and same_bytes(group.names[0], matrix.names[0]):
                names = (*group.names, *matrix.names)
                groups[n] = dataclasses.replace(group, names=names, is_head=group.is_head or tie)
                break
        else:
            groups.append(matrix)
    return groups


def head_as_input(matrices: list[VocabMatrix], facts: ModelFacts) -> list[VocabMatrix]:
    """Take a stored lm_head for the input embeddings of a tied model that stores its one matrix under that name."""
    heads = [matrix for matrix in matrices if matrix.role == "output"]
    if len(heads) != 1 or not facts.has_head or facts.tied is not True:
        return matrices
    tied = dataclasses.replace(heads[0], role="input", is_head=True)
    return [tied if matrix is heads[0] else matrix for matrix in matrices]


def mark_head(matrices: Sequence[VocabMatrix], facts: ModelFacts) -> tuple[VocabMatrix, ...]:
    """Mark the input embeddings as the lm_head where the model has a head and stores no matrix for it."""
    stored = any((matrix.role == "output" and not matrix.further) or matrix.is_head for matrix in matrices)
    if stored or not facts.has_head or facts.tied is False:
        return tuple(matrices)
    first = next(n for n, matrix in enumerate(matrices) if matrix.role == "input")
    head = dataclasses.replace(matrices[first], is_head=True)
    return (*matrices[:first], head, *matrices[first + 1 :])
