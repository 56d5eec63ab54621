"""Computes the rows that cannot be copied, one group of vocabulary matrices at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from tokswap.checkpoint.edit import GroupRows, MatrixEdit
from tokswap.checkpoint.embeddings import Columns, EmbeddingSpace
from tokswap.checkpoint.matrices import VocabMatrix
from tokswap.checkpoint.source import SourceModel
from tokswap.init.base import BaseModel, Context, Initializer, MatrixUse, Pieces, Problem, Rows, Tokenizers
from tokswap.init.donor import Donor
from tokswap.init.nonfinite import sound, unread_notes
from tokswap.init.resources.disk import DiskResources
from tokswap.init.written_rows import MadeNorms, NeutralAndNew, WatchedRows
from tokswap.tokenizer.alignment import Alignment, Reason
from tokswap.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Methods:
    """The methods of a run: one for all matrices, and another for lm_head where the user names one."""

    main: Initializer
    output: Initializer | None = None

    def of(self, role: str) -> Initializer:
        """Return the method for a role."""
        return self.output if role == "output" and self.output is not None else self.main

    @property
    def all(self) -> tuple[Initializer, ...]:
        """Every method of the run."""
        return (self.main,) if self.output is None else (self.main, self.output)

    def check(self, source: SourceModel) -> None:
        """Check that each method can make rows for a source model.

        Raises:
            UsageError, InputError: as each method's `check`.
        """
        checkpoint, embeddings = source.checkpoint, source.checkpoint.matrices[0]
        tied = None if checkpoint.matrix("output") is None else checkpoint.tied
        facts = BaseModel(source.tokenizer.vocabulary, embeddings.width, rows=embeddings.rows, tied=tied)
        for method in self.all:
            method.check(facts, DiskResources())


@dataclass(frozen=True)
class RowTask:
    """What new rows are computed from.

    Attributes:
        source: The source model.
        target: The target tokenizer.
        donor: The donor, None without one.
        alignment: Where every row of the result comes from.
        methods: What computes the missing rows.
        context: Seed, device, memory and resources.
        copied_head: Whether every row of lm_head that is not copied is neutral.
    """

    source: SourceModel
    target: Tokenizer
    donor: Donor | None
    alignment: Alignment
    methods: Methods
    context: Context = field(default_factory=Context)
    copied_head: bool = False

    def computes(self, role: str) -> bool:
        """Whether a method computes the rows of missing tokens in the matrices of a role."""
        return role != "lookup" and not (self.copied_head and role == "output")


@dataclass(frozen=True)
class SolvedGroup:
    """What a method said about the rows of one role.

    Attributes:
        result: Diagnostics, evidence and notes of the method; its rows are not held.
        made: The norms of its rows, as they are made, and the time that it took.
        copied_norms: Norms of the copied rows, float32 [S].
    """

    result: Rows
    made: MadeNorms
    copied_norms: np.ndarray

    @property
    def count(self) -> int:
        """Number of computed rows."""
        return len(self.made.norms)

    @property
    def norms(self) -> np.ndarray:
        """Norms of the computed rows, float32 [M]."""
        return self.made.norms


class Solver:
    """Computes the rows of each group for the writer, and keeps what the methods say about them."""

    def __init__(self, task: RowTask) -> None:
        self.task = task
        self.solved: dict[str, SolvedGroup] = {}
        self._donor_spaces: dict[str, EmbeddingSpace] = {}
        self._sound: dict[str, Columns] = {}

    @property
    def seconds(self) -> float:
        """Time spent in methods so far."""
        return sum(group.made.seconds for group in self.solved.values())

    def solve(self, group: tuple[MatrixEdit, ...]) -> GroupRows:
        """Return the computed rows of each matrix of a group, float32 [n, D] in blocks, which are made when asked for.

        Raises:
            InputError: nan-in-table, and what a method raises; method-failed when a non-finite row is made.
        """
        lead = group[0].matrix
        if lead.role == "lookup":
            return {edit.name: np.zeros((0, edit.matrix.width), np.float32) for edit in group}
        begin = time.perf_counter()
        columns = [self._columns(edit.matrix) for edit in group]
        problem = self._problem(lead, columns)
        computes, alignment = self.task.computes(lead.role), self.task.alignment
        asked = computes and len(problem.missing)
        found = self.task.methods.of(lead.role)(problem) if asked else Rows(_no_rows(problem))
        made = MadeNorms(type(self.task.methods.of(lead.role)).__name__, np.zeros(len(found.made), np.float32))
        notes = (*found.notes, *unread_notes(problem.source, "model"), *unread_notes(problem.donor, "donor"))
        if computes:
            self.solved[lead.role] = SolvedGroup(
                result=Rows(_no_rows(problem), found.diagnostics, found.evidence, notes=notes),
                made=made,
                copied_norms=problem.source.norms(alignment.source_of[alignment.shared]),
            )
        # The mean of copied rows is never above the best of them. Others may have no copy in the result.
        mean_of = problem.trained if computes else np.unique(alignment.source_of[alignment.shared])
        needed = len(alignment.neutral) or not computes
        neutral = _neutral_row(problem, lead.width, mean_of) if needed else np.zeros(problem.source.width)
        missing = (alignment.reason[alignment.source_of < 0] == Reason.MISSING) & computes
        rows = WatchedRows(found.made, made)
        made.seconds += time.perf_counter() - begin
        edges = np.cumsum([0, *(edit.matrix.width for edit in group)])
        return {
            edit.name: NeutralAndNew(
                rows, slice(a, b), neutral[a:b].astype(np.float32), missing=missing, shift=part.shift
            )
            for edit, part, a, b in zip(group, columns, edges[:-1], edges[1:], strict=True)
        }

    def _problem(self, lead: VocabMatrix, columns: list[Columns]) -> Problem:
        task = self.task
        space = EmbeddingSpace(task.source.tokenizer.vocabulary, columns, name=f"source {lead.names[0]}")
        return Problem(
            source=space,
            donor=self._donor_space(lead.role),
            target=task.target.vocabulary,
            alignment=task.alignment,
            missing=task.alignment.missing,
            pieces=self._pieces,
            matrix=MatrixUse(lead.role, scores=lead.role == "output" or lead.is_head),
            tokenizers=Tokenizers(task.source.tokenizer, task.target, _MergePairs(task.source.tokenizer)),
            spaces=self._spaces,
            context=task.context,
        )

    @cached_property
    def _pieces(self) -> Pieces:
        token_bytes = self.task.target.vocabulary.token_bytes
        missing = [token_bytes[token] for token in self.task.alignment.missing.tolist()]
        return Pieces(lambda: self.task.source.tokenizer.tokenize_bytes(missing))

    @cached_property
    def _spaces(self) -> Mapping[str, EmbeddingSpace]:
        source = self.task.source
        found = {m.role: m for m in reversed(source.checkpoint.matrices) if m.role not in ("bias", "lookup")}
        vocabulary = source.tokenizer.vocabulary
        return {role: EmbeddingSpace(vocabulary, [self._columns(matrix)]) for role, matrix in found.items()}

    def _columns(self, matrix: VocabMatrix) -> Columns:
        """The source rows of a matrix.

        Biases are taken relative to their mean: a method whose weights do not add up to one would scale what all tokens
        have in common, and a bias common to all tokens changes no probability.
        """
        name, source = matrix.names[0], self.task.source
        vocabulary = source.tokenizer.vocabulary
        if name not in self._sound:
            columns = Columns(source.checkpoint.raw_rows(name, matrix.axis), matrix.dtype)
            self._sound[name] = sound(columns, vocabulary, "model", source.checkpoint.folder)
        columns = self._sound[name]
        if matrix.role != "bias":
            return columns
        mean = float(EmbeddingSpace(vocabulary, [columns]).mean(np.arange(len(vocabulary)))[0])
        return replace(columns, shift=mean)

    def _donor_space(self, role: str) -> EmbeddingSpace | None:
        """The donor's rows for a role; roles that share a donor matrix get the same space."""
        donor = self.task.donor
        if donor is None:
            return None
        # A donor without a head, an encoder say, lends its input embeddings to lm_head too.
        checkpoint = donor.checkpoint
        owner = (checkpoint.matrix("output") if role == "output" else None) or checkpoint.matrix("input")
        assert owner is not None  # find_matrices refuses a checkpoint without one
        name = owner.names[0]
        if name not in self._donor_spaces:
            raw, target = checkpoint.raw_rows(name, owner.axis), self.task.target.vocabulary
            rows = raw[: len(target)] if donor.rows is None else raw[donor.rows]
            columns = sound(Columns(rows, owner.dtype), target, "donor", checkpoint.folder)
            self._donor_spaces[name] = EmbeddingSpace(target, [columns], name=f"donor {name}")
        return self._donor_spaces[name]


@dataclass(frozen=True)
class _MergePairs:
    """The two tokens that a tokenizer joins into each token, looked up when a method first asks."""

    tokenizer: Tokenizer

    def __getitem__(self, ids: np.ndarray) -> np.ndarray:
        return np.asarray(self._pairs[ids])

    @cached_property
    def _pairs(self) -> np.ndarray:
        return self.tokenizer.merge_pairs()


def _no_rows(problem: Problem) -> np.ndarray:
    return np.zeros((0, problem.source.width), np.float32)


def _neutral_row(problem: Problem, width: int, ids: np.ndarray) -> np.ndarray:
    """A row for tokens that are never predicted: padding, special tokens that the source lacks.

    Its logit is the mean logit of some source tokens, whatever the hidden state, so it stays in the middle of every
    ranking; a zero row would win wherever all logits are negative. An output bias gets the least value of theirs.
    """
    row = problem.source.mean(ids)
    if problem.source.width > width:
        biases = np.stack([block[:, width:].min(axis=0) for block in problem.source.blocks(ids)])
        row[width:] = biases.min(axis=0)
    return row


def copies_only(
    matrices: tuple[MatrixEdit, ...], alignment: Alignment, source: Tokenizer, target: Tokenizer
) -> tuple[MatrixEdit, ...]:
    """Return the matrices with a source row for every row of a lookup matrix, since integers cannot be computed.

    A token that the source lacks gets the row of its first piece; a token without pieces and padding get row 0.
    """
    source_of = np.maximum(alignment.source_of, 0)
    token_bytes = [target.vocabulary.token_bytes[token] for token in alignment.missing.tolist()]
    for token, pieces in zip(alignment.missing.tolist(), source.tokenize_bytes(token_bytes), strict=True):
        source_of[token] = pieces[0] if pieces else 0
    return tuple(replace(edit, source_of=source_of) if edit.matrix.role == "lookup" else edit for edit in matrices)


def evidence_of(solver: Solver) -> dict[str, dict[str, Any]]:
    """Return role -> why a method chose what it did, where it says."""
    return {role: dict(group.result.evidence) for role, group in solver.solved.items() if group.result.evidence}
