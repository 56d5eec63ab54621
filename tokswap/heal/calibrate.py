"""Plans a calibration, lets the text choose the method it starts from, and fits the new embeddings to the text."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.checkpoint.edit import Edit, GroupRows, MatrixEdit, NewRows, merged_blocks
from tokswap.checkpoint.embeddings import decode
from tokswap.checkpoint.facts import model_facts
from tokswap.checkpoint.reader import Checkpoint
from tokswap.checkpoint.source import SourceModel
from tokswap.evaluation.models import load_model
from tokswap.heal.calibration import Calibration, Matrices, cost
from tokswap.heal.passages import Passage, read_passages
from tokswap.init.blend import read_method
from tokswap.init.registry import CANDIDATES
from tokswap.init.solver import Methods, Solver
from tokswap.tokenizer.tokenizer import Tokenizer

_CHOOSE_TOKENS = 6000
_ROWS = 8192

SolverOf = Callable[[Methods], Solver]
Candidate = tuple[str, Methods]
"""How a method is written, and the method."""


@dataclass(frozen=True)
class Outcome:
    """What is to be written, calibrated or not.

    Attributes:
        solver: What computed the rows.
        edit: The edit, with no row copied in calibrated matrices.
        fitted: Every row of each calibrated matrix, float32 [V, D], by the name of its `MatrixEdit`.
        solved: Rows that were computed on the way, by the first matrix of their group.
        evidence: What was measured, for the Report.
        notes: What the user should know.
    """

    solver: Solver
    edit: Edit
    fitted: Mapping[str, np.ndarray] = field(default_factory=dict)
    solved: Mapping[str, GroupRows] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def calibrated(self) -> tuple[str, ...]:
        """The tensors that were calibrated."""
        return tuple(name for edit in self.edit.matrices if edit.name in self.fitted for name in edit.names)

    def solve(self, group: tuple[MatrixEdit, ...]) -> GroupRows:
        """Return the rows of a group for the writer."""
        if all(edit.name in self.fitted for edit in group):
            return {edit.name: self.fitted[edit.name] for edit in group}
        key = group[0].name
        computed = self.solved[key] if key in self.solved else self.solver.solve(group)
        return {**computed, **{edit.name: self.fitted[edit.name] for edit in group if edit.name in self.fitted}}


@dataclass(frozen=True)
class CalibrationJob:
    """A calibration that has been checked and is ready to run.

    Attributes:
        passages: The text.
        lead: Ids that come before every text of the result.
        candidates: What to start from; where there are several, the text decides.
        flops: Floating-point operations that it takes.
        note: What it does, for the user.
        settings: How it runs.
        trust_remote_code: Whether the model's own code may run.
    """

    passages: Sequence[Passage]
    lead: Sequence[int]
    candidates: Sequence[Candidate]
    flops: float
    note: str
    settings: Calibration = field(default_factory=Calibration)
    trust_remote_code: bool = False

    def run(self, edit: Edit, source: SourceModel, solver_of: SolverOf) -> Outcome:
        """Compute the rows with every candidate, keep the best on the text, and fit its matrices to the text."""
        from tokswap.heal.fit import fit

        model = self._model(edit, source, device=solver_of(self.candidates[0][1]).task.context.device)
        start, tried = self._best_start(model, edit, solver_of)
        context = start.solver.task.context
        fitted = fit(
            model, start.matrices, self.passages, self.lead, self.settings, seed=context.seed, progress=context.progress
        )
        evidence: dict[str, Any] = {"calibration": fitted.history}
        if tried:
            chosen = min(tried, key=lambda entry: float(entry["bits_per_byte"]))["method"]
            evidence["text"] = {"candidates": tried, "chosen": {"all": chosen}}
        if fitted.matrices is None:
            return Outcome(start.solver, edit, solved=start.solved, evidence=evidence, notes=fitted.notes())
        values = {"input": fitted.matrices.input, "output": fitted.matrices.output}
        changed = {one.name: rows for one in _fitted(edit) if (rows := values[one.matrix.role]) is not None}
        matrices = tuple(
            dataclasses.replace(one, source_of=np.full_like(one.source_of, -1)) if one.name in changed else one
            for one in edit.matrices
        )
        edit = dataclasses.replace(edit, matrices=matrices)
        return Outcome(start.solver, edit, changed, solved=start.solved, evidence=evidence)

    def _model(self, edit: Edit, source: SourceModel, device: str) -> Any:
        if source.loaded is not None:
            return source.loaded.model
        dtype = "float32" if edit.matrices[0].matrix.dtype in ("F32", "F64") else "bfloat16"
        trust = self.trust_remote_code
        return load_model(edit.checkpoint.folder, dtype=dtype, device=device, trust_remote_code=trust)[0]

    def _best_start(self, model: Any, edit: Edit, solver_of: SolverOf) -> tuple[_Start, list[dict[str, Any]]]:
        """The candidate whose rows predict the text best, and what each was measured at; nothing for a single one."""
        from tokswap.heal.fit import text_loss

        if len(self.candidates) == 1:
            return _start(edit, solver_of(self.candidates[0][1])), []
        best: _Start | None = None
        tried: list[dict[str, Any]] = []
        least = float("inf")
        for name, methods in self.candidates:
            start = _start(edit, solver_of(methods))
            loss = text_loss(model, start.matrices, self._some(), self.lead, self.settings.batch)
            tried.append({"method": name, "bits_per_byte": round(loss, 4)})
            if best is None or loss < least:
                best, least = start, loss
        assert best is not None
        return best, tried

    def _some(self) -> list[Passage]:
        """Passages from all over the text, enough to choose by."""
        total = sum(len(passage.ids) for passage in self.passages)
        return list(self.passages[:: max(1, round(total / _CHOOSE_TOKENS))])


@dataclass(frozen=True)
class _Start:
    """What a calibration starts from: a solver, the groups that it has solved, and the new matrices in float32."""

    solver: Solver
    solved: Mapping[str, GroupRows]
    matrices: Matrices


def _start(edit: Edit, solver: Solver) -> _Start:
    """Compute the matrices that a calibration reads."""
    wanted = {one.name for one in _fitted(edit)} | {one.name for one in edit.matrices if one.matrix.role == "bias"}
    solved = {group[0].name: solver.solve(group) for group in edit.groups if wanted & {one.name for one in group}}
    rows = {name: own for group in solved.values() for name, own in group.items()}
    whole = [_whole(edit.checkpoint, one, rows[one.name]) for one in _fitted(edit)]
    biases = [one for one in edit.matrices if one.matrix.role == "bias"]
    bias = _whole(edit.checkpoint, biases[0], rows[biases[0].name])[:, 0] if biases else None
    return _Start(solver, solved, Matrices(whole[0], whole[1] if len(whole) > 1 else None, bias))


def _fitted(edit: Edit) -> list[MatrixEdit]:
    """The matrices that a calibration fits: the first input embeddings, and lm_head where it is a matrix of its own."""
    inputs = [one for one in edit.matrices if one.matrix.role == "input"]
    outputs = [one for one in edit.matrices if one.matrix.role == "output"]
    return [*inputs[:1], *outputs[:1]]


def _whole(checkpoint: Checkpoint, edit: MatrixEdit, new: NewRows) -> np.ndarray:
    """Every row of a new matrix, float32 [V, D]."""
    raw = checkpoint.raw_rows(edit.matrix.names[0], edit.matrix.axis)
    rows = np.empty((len(edit.source_of), edit.matrix.width), np.float32)
    at = 0
    for block in merged_blocks(
        edit, raw, new, size=_ROWS, copy=lambda old: decode(old, edit.matrix.dtype), compute=np.asarray
    ):
        rows[at : at + len(block)] = block
        at += len(block)
    return rows


def plan_calibration(
    texts: Sequence[str | Path],
    source: Checkpoint,
    target: Tokenizer,
    *,
    bos: int | None,
    candidates: Sequence[Candidate],
    trust_remote_code: bool,
) -> CalibrationJob:
    """Check a calibration before anything is loaded.

    Args:
        texts: Files with text.
        source: The source model.
        target: The target tokenizer.
        bos: Id that the result's tokenizer will put first where the target's does not by itself.
        candidates: What to start from.
        trust_remote_code: Whether the model's own code may run.

    Raises:
        InputError: not-causal, not-text-only, bad-text, empty-text, text-too-small, text-not-spelt.
    """
    facts = model_facts(source.config)
    facts.require_causal(source.folder, "calibration reads text with the model; leave out --calibrate")
    facts.require_text_only(source.folder)
    lead = [bos] if bos is not None else list(target.leading)
    longest = facts.positions - len(lead) if facts.positions is not None else None
    passages = read_passages(texts, target, longest)
    settings = Calibration()
    tokens = sum(len(passage.ids) for passage in passages)
    matrix = source.matrices[0]
    size = matrix.rows * matrix.width
    body = sum(prod(info.shape) for info in source.tensors.values()) - size
    note = (
        f"calibration reads {sum(passage.bytes for passage in passages):,} bytes ({tokens:,} tokens) with the model "
        f"and trains on up to {min(settings.tokens, settings.epochs * tokens):,} tokens; "
        "every row of its matrices will change"
    )
    return CalibrationJob(
        passages=passages,
        lead=lead,
        candidates=candidates,
        flops=cost(settings, tokens, body, size),
        note=note,
        settings=settings,
        trust_remote_code=trust_remote_code,
    )


def text_candidates(has_donor: bool) -> list[Candidate]:
    """Return what `auto` chooses from when there is a text: the same method for all matrices."""
    return [(name, Methods(read_method(name))) for name in CANDIDATES[has_donor].by_text]
