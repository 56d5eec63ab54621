"""Makes the rows that no source row can be copied for, one group of tables at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.checkpoint.embeddings import Columns, EmbeddingSpace, row_norms
from tokswap.checkpoint.reader import Checkpoint
from tokswap.checkpoint.writer import MatrixEdit, NewRows
from tokswap.distributed import LOCAL, Backend
from tokswap.errors import InputError
from tokswap.init.base import WORK_BYTES, Initializer, Pieces, Problem
from tokswap.tokenizer.alignment import Alignment, Reason
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Vocabulary


@dataclass(frozen=True)
class _Made:
    """The rows of a method and the neutral row, put in order when a block of them is asked for.

    missing: bool[n], whether each made row is the method's next or the neutral one.
    """

    rows: np.ndarray
    neutral: np.ndarray
    missing: np.ndarray
    shift: float

    def __len__(self) -> int:
        return len(self.missing)

    def __getitem__(self, part: slice) -> np.ndarray:
        missing = self.missing[part]
        block = np.tile(self.neutral, (len(missing), 1))
        first = int(np.count_nonzero(self.missing[: part.start]))
        block[missing] = self.rows[first : first + int(np.count_nonzero(missing))]
        return block + np.float32(self.shift)


@dataclass(frozen=True)
class _MergePairs:
    """The two tokens that the source's tokenizer joins into each token, looked for when a method first asks."""

    tokenizer: Tokenizer

    def __getitem__(self, ids: np.ndarray) -> np.ndarray:
        return np.asarray(self._pairs[ids])

    @cached_property
    def _pairs(self) -> np.ndarray:
        return self.tokenizer.merge_pairs()


@dataclass
class Solver:
    """Answers `edit.apply` when it asks for the made rows of a table; keeps what the methods say about them.

    initializer: the method. output_initializer: another one for an output head with its biases.
    donor_rows: int64[V], the donor's row of each target token; None where it is the token's id.
    backend: where methods do work that splits into parts.
    seconds: time spent in methods so far. diagnostics: table role -> name -> float[M]. evidence: table role -> why a
    method that chooses chose what it did. lengths: table role -> float[M], the norms of the made rows. copied_lengths: table role ->
    float[S], those of the rows that are copied. notes: each once.
    """

    source: Checkpoint
    source_tokenizer: Tokenizer
    target: Tokenizer
    donor: Checkpoint | None
    alignment: Alignment
    initializer: Initializer
    matrices: Sequence[MatrixEdit]
    seed: int = 0
    device: str = "cpu"
    memory: int = WORK_BYTES
    progress: bool = False
    donor_rows: np.ndarray | None = None
    output_initializer: Initializer | None = None
    backend: Backend = LOCAL
    seconds: float = 0.0
    checks: dict[str, int] = field(default_factory=dict)
    diagnostics: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    evidence: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lengths: dict[str, np.ndarray] = field(default_factory=dict)
    copied_lengths: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        surfaces = [self.target.vocabulary.token_bytes[token] for token in self.alignment.missing.tolist()]
        self.pieces = Pieces(lambda: self.source_tokenizer.tokenize_bytes(surfaces))
        self.merge_pairs = _MergePairs(self.source_tokenizer)
        self.made: dict[int, NewRows] = {}
        self.cache: dict[object, Any] = {}
        self.donor_spaces: dict[str, EmbeddingSpace] = {}
        self.group_of = {id(table): group for group in _groups(self.matrices) for table in group}

    def rows(self, table: MatrixEdit) -> NewRows:
        """Return float32[n, D] for the rows of a table that have no source."""
        if table.matrix.role == "lookup":
            return np.zeros((0, table.matrix.width), np.float32)
        if id(table) not in self.made:
            begin = time.perf_counter()
            self._solve(self.group_of[id(table)])
            self.seconds += time.perf_counter() - begin
        return self.made.pop(id(table))

    def keep(self, table: MatrixEdit, rows: NewRows) -> None:
        """Hand back the rows of a table, to be asked for again."""
        self.made[id(table)] = rows

    def _solve(self, group: tuple[MatrixEdit, ...]) -> None:
        lead = group[0].matrix
        columns = [self._columns(table) for table in group]
        space = EmbeddingSpace(self.source_tokenizer.vocabulary, columns)
        self._check_finite(space, "model", self.source.folder)
        problem = Problem(
            space,
            self._donor_space(lead.role),
            self.target.vocabulary,
            self.alignment,
            self.alignment.missing,
            self.pieces,
            lead.role,
            self.seed,
            self.device,
            self.memory,
            self.progress,
            self.cache,
            merge_pairs=self.merge_pairs,
            scores=lead.role == "output" or lead.is_head,
            spaces=self._spaces,
            source_tokenizer=self.source_tokenizer,
            target_tokenizer=self.target,
            backend=self.backend,
        )
        initializer = (self.output_initializer if lead.role == "output" else None) or self.initializer
        rows = np.zeros((0, space.width), np.float32)
        if len(problem.missing):
            rows = initializer(problem)
        self.lengths[lead.role] = row_norms(rows)
        if not np.isfinite(self.lengths[lead.role]).all():
            raise InputError("method-failed", f"`{type(initializer).__name__}` made rows that are not finite numbers")
        neutral = _never_predicted(problem, group) if len(self.alignment.neutral) else np.zeros(space.width, np.float32)
        missing = self.alignment.reason[self.alignment.source_of < 0] == Reason.MISSING
        self.checks[f"{lead.role} rows made"] = len(rows)
        self.diagnostics[lead.role] = problem.details
        if problem.evidence:
            self.evidence[lead.role] = problem.evidence
        self.notes += [note for note in problem.notes if note not in self.notes]
        self.copied_lengths[lead.role] = space.norms(self.alignment.source_of[self.alignment.shared])
        at = 0
        for table, part in zip(group, columns, strict=True):
            own = slice(at, at + table.matrix.width)
            self.made[id(table)] = _Made(rows[:, own], neutral[own], missing, part.shift)
            at += table.matrix.width

    @cached_property
    def _spaces(self) -> dict[str, EmbeddingSpace]:
        tables = {table.role: table for table in reversed(self.source.matrices) if table.role not in ("bias", "lookup")}
        raw = {role: Columns(self.source.raw_rows(t.names[0], t.axis), t.dtype) for role, t in tables.items()}
        return {role: EmbeddingSpace(self.source_tokenizer.vocabulary, [columns]) for role, columns in raw.items()}

    def _columns(self, table: MatrixEdit) -> Columns:
        """The source's rows of a table.

        Biases are taken round their mean: a method whose weights do not add up to one would scale what all tokens
        have in common, and a bias common to all tokens changes no probability.
        """
        raw = self.source.raw_rows(table.matrix.names[0], table.matrix.axis)
        columns = Columns(raw, table.matrix.dtype)
        if table.matrix.role != "bias":
            return columns
        ids = np.arange(len(self.source_tokenizer.vocabulary))
        mean = float(EmbeddingSpace(self.source_tokenizer.vocabulary, [columns]).mean(ids)[0])
        return Columns(raw, table.matrix.dtype, mean if np.isfinite(mean) else 0.0)

    def _donor_space(self, role: str) -> EmbeddingSpace | None:
        """The donor's rows for a role; tables that share a donor table get the same space."""
        if self.donor is None:
            return None
        # A donor without a head, an encoder say, lends its input table to the source's head too.
        owner = (self.donor.matrix("output") if role == "output" else None) or self.donor.matrix("input")
        assert owner is not None  # find_matrices refuses a checkpoint without one
        name = owner.names[0]
        if name not in self.donor_spaces:
            raw, target = self.donor.raw_rows(name, owner.axis), self.target.vocabulary
            rows = raw[: len(target)] if self.donor_rows is None else raw[self.donor_rows]
            space = EmbeddingSpace(target, [Columns(rows, owner.dtype)])
            self._check_finite(space, "donor", self.donor.folder)
            self.donor_spaces[name] = space
        return self.donor_spaces[name]

    def _check_finite(self, space: EmbeddingSpace, whose: str, folder: Path) -> None:
        bad = np.concatenate([np.flatnonzero(~columns.finite()) for columns in space.columns])
        if len(bad):
            raise InputError(
                "nan-in-table",
                f"the {whose}'s embedding table has rows that are not finite numbers, the first is row {bad.min()}",
                "the checkpoint is damaged, or its training diverged",
                folder=folder,
            )

    @property
    def norms(self) -> dict[str, dict[str, np.ndarray]]:
        """Table role -> "copied" and "made" -> the lengths of these rows."""
        return {role: {"copied": self.copied_lengths[role], "made": made} for role, made in self.lengths.items()}

    def unusual(self, count: int = 10, least: float = 0.05) -> tuple[tuple[str, float, tuple[str, ...]], ...]:
        """The missing tokens whose input rows are farthest from the usual length: token, length, its pieces in the source.

        least: rows that are no farther than this from the median, as a share of it, are as usual.
        """
        lengths = self.lengths.get("input", np.zeros(0)).astype(np.float64)
        if not len(lengths):
            return ()
        far = np.abs(np.log(np.maximum(lengths, 1e-12) / max(float(np.median(lengths)), 1e-12)))
        order = [n for n in np.argsort(-far, kind="stable")[:count].tolist() if far[n] > least]
        source, target = self.source_tokenizer.vocabulary, self.target.vocabulary
        tokens = self.alignment.missing[order].tolist()
        cut = self.source_tokenizer.tokenize_bytes([target.token_bytes[token] for token in tokens])
        return tuple(
            (target.readable(token), round(float(lengths[n]), 4), tuple(map(source.readable, pieces)))
            for n, token, pieces in zip(order, tokens, cut, strict=True)
        )

    def worst(self, count: int = 10) -> tuple[tuple[str, float], ...]:
        """The missing tokens whose input rows the method explains least."""
        residual = self.diagnostics.get("input", {}).get("residual")
        if residual is None:
            return ()
        order = np.argsort(-residual, kind="stable")[:count]
        texts = [self.target.vocabulary.readable(token) for token in self.alignment.missing[order].tolist()]
        return tuple((text, round(float(residual[n]), 4)) for text, n in zip(texts, order, strict=True))


def looked_up(
    matrices: Sequence[MatrixEdit], alignment: Alignment, source: Tokenizer, target: Tokenizer
) -> tuple[MatrixEdit, ...]:
    """Return the tables with a source row for every row of a lookup table, since integers cannot be computed.

    A token that the source lacks gets the row of its first piece; what has no pieces, padding too, that of id 0.
    """
    source_of = np.maximum(alignment.source_of, 0)
    surfaces = [target.vocabulary.token_bytes[token] for token in alignment.missing.tolist()]
    for token, pieces in zip(alignment.missing.tolist(), source.tokenize_bytes(surfaces), strict=True):
        source_of[token] = pieces[0] if pieces else 0
    return tuple(replace(edit, source_of=source_of) if edit.matrix.role == "lookup" else edit for edit in matrices)


def _never_predicted(problem: Problem, group: tuple[MatrixEdit, ...]) -> np.ndarray:
    """A row for padding and for control tokens that the source lacks.

    Its logit is the mean logit of all trained tokens, whatever the hidden state, so it stays in the middle of every
    ranking; a zero row would win wherever all logits are negative. An output bias gets its least trained value.
    """
    row = problem.source_mean.copy()
    at = group[0].matrix.width
    if len(group) > 1:
        biases = np.stack([block[:, at:].min(axis=0) for block in problem.source.blocks(problem.trained)])
        row[at:] = biases.min(axis=0)
    return row


def _groups(tables: Sequence[MatrixEdit]) -> list[tuple[MatrixEdit, ...]]:
    """Solve the head and its biases together: their rows answer to the same weights."""
    heads = [table for table in tables if table.matrix.role == "output" or table.matrix.is_head]
    biases = [table for table in tables if table.matrix.role == "bias"]
    if biases and not heads:
        heads = [table for table in tables if table.matrix.role == "input"][:1]
    return [
        (table, *biases) if heads and table is heads[0] else (table,)
        for table in tables
        if table.matrix.role not in ("bias", "lookup")
    ]


def estimate(
    initializer: Initializer,
    donor: Checkpoint | None,
    alignment: Alignment,
    source: Vocabulary,
    matrices: Sequence[MatrixEdit],
    written: int,
    memory: int,
    *,
    output_initializer: Initializer | None = None,
    extra_flops: float = 0.0,
) -> tuple[int, float]:
    """Return about how much memory (bytes) and time (seconds) a run takes, from a small measured matrix product.

    output_initializer: another method for an output head. extra_flops: floating-point operations of what else it does.
    """
    missing, anchors = len(alignment.missing), int(np.count_nonzero(alignment.reason == Reason.BYTES))
    made = int(np.count_nonzero(alignment.source_of < 0))
    block = np.ones((768, 768), np.float32)
    begin = time.perf_counter()
    block @ block
    rate = 2 * 768**3 / max(time.perf_counter() - begin, 1e-4)
    flops, held = extra_flops, 0
    owner = donor.matrix("input") if donor is not None else None
    for edit in matrices:
        if edit.matrix.role not in ("bias", "lookup"):
            width = owner.width if owner is not None else edit.matrix.width
            method = output_initializer if output_initializer and edit.matrix.role == "output" else initializer
            flops += method.flops(missing, anchors, width)
            work = (6 * anchors + 4 * missing) * width + memory if owner is not None else 0
            mapped = edit.matrix.rows * edit.nbytes // max(len(edit.source_of), 1)  # read in place, by memory map
            mapped += owner.rows * owner.width * edit.nbytes // edit.matrix.width // len(alignment) if owner else 0
            held = max(held, 4 * made * edit.matrix.width + mapped + work)
    # Measured on the demo models: the libraries take 450 MB, and a token 1.5 kB as text, bytes and parsed JSON.
    return held + 450_000_000 + 1500 * (len(source) + len(alignment)), round(flops / rate + written / 1e9 + 2.0, 1)
