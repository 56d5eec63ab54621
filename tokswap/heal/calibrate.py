"""Chooses the start of a calibration by the text, and carries it out on the tables of a transplant."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.checkpoint.embeddings import decode
from tokswap.checkpoint.matrices import text_config
from tokswap.checkpoint.reader import Checkpoint
from tokswap.checkpoint.writer import Edit, MatrixEdit, NewRows
from tokswap.errors import InputError
from tokswap.evaluation.losses import load_model
from tokswap.heal.calibration import Calibration, Tables, cost
from tokswap.heal.passages import Passage, read_passages
from tokswap.init.base import Initializer
from tokswap.init.blend import read_method
from tokswap.init.solver import Solver
from tokswap.tokenizer.tokenizer import Tokenizer

WITH_DONOR = ("kriging", "omp", "subword", "0.6*kriging + 0.4*subword(weights=first)")
WITHOUT_DONOR = ("subword", "subword(weights=exponential)", "subword(weights=length)")
"""Where the method is left to `auto`, the text decides between these, whole tables each."""
_CHOOSE_TOKENS = 6000
_ROWS = 8192


SolverOf = Callable[[Initializer, Initializer], Solver]


@dataclass(frozen=True)
class Outcome:
    """What is to be written, calibrated or not.

    solver: makes the rows of the tables that were not calibrated. edit: with no row copied in those that were. rows:
    these tables, float32[V, D], by `id` of their MatrixEdit.
    """

    solver: Solver
    edit: Edit
    rows: Mapping[int, np.ndarray] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def calibrated(self) -> tuple[str, ...]:
        """The tensors that were calibrated."""
        return tuple(name for table in self.edit.matrices if id(table) in self.rows for name in table.names)

    def new_rows(self, table: MatrixEdit) -> NewRows:
        """Answer `edit.apply`."""
        return self.rows[id(table)] if id(table) in self.rows else self.solver.rows(table)


@dataclass(frozen=True)
class CalibrationJob:
    """A calibration that has been checked and is ready to run.

    lead: the ids that come before every text of the result. candidates: name, method for all tables, method for an
    output head; where there are several, the text decides.
    """

    passages: Sequence[Passage]
    lead: Sequence[int]
    candidates: Sequence[tuple[str, Initializer, Initializer]]
    settings: Calibration = field(default_factory=Calibration)
    trust_remote_code: bool = False

    def run(self, edit: Edit, solver_of: SolverOf) -> Outcome:
        """Make the rows with every candidate, keep the one that predicts the text best, and fit its tables to the text."""
        from tokswap.heal.fit import fit, text_loss

        solver = solver_of(*self.candidates[0][1:])
        dtype = "float32" if edit.matrices[0].matrix.dtype in ("F32", "F64") else "bfloat16"
        model, _ = load_model(
            edit.checkpoint.folder, dtype=dtype, device=solver.device, trust_remote_code=self.trust_remote_code
        )
        tables = _tables(edit, solver)
        tried: list[dict[str, Any]] = []
        least = float("inf")
        for name, *methods in self.candidates if len(self.candidates) > 1 else ():
            own = solver if not tried else solver_of(*methods)
            start = tables if not tried else _tables(edit, own)
            loss = text_loss(model, start, self._some(), self.lead, self.settings.batch)
            tried.append({"method": name, "bits_per_byte": round(loss, 4)})
            if loss < least:
                solver, tables, least = own, start, loss
        fitted = fit(model, tables, self.passages, self.lead, self.settings, seed=solver.seed, progress=solver.progress)
        evidence: dict[str, Any] = {"calibration": fitted.history}
        if tried:
            chosen = min(tried, key=lambda entry: float(entry["bits_per_byte"]))["method"]
            evidence["text"] = {"candidates": tried, "chosen": {"all": chosen}}
        if fitted.tables is None:
            return Outcome(solver, edit, {}, evidence, fitted.notes())
        changed: dict[int, np.ndarray] = {}
        edits, fitted_tables = [], _fitted(edit)
        values = {"input": fitted.tables.input, "output": fitted.tables.output}
        for table in edit.matrices:
            own_values = values.get(table.matrix.role) if any(table is one for one in fitted_tables) else None
            if own_values is not None:
                table = dataclasses.replace(table, source_of=np.full_like(table.source_of, -1))
                changed[id(table)] = own_values
            edits.append(table)
        return Outcome(solver, dataclasses.replace(edit, matrices=tuple(edits)), changed, evidence, [])

    def _some(self) -> list[Passage]:
        """Passages from all over the text, enough to choose by."""
        total = sum(len(passage.ids) for passage in self.passages)
        return list(self.passages[:: max(1, round(total / _CHOOSE_TOKENS))])


def _fitted(edit: Edit) -> list[MatrixEdit]:
    """The tables that a calibration fits: the first input table, and the head where it is another one."""
    inputs = [table for table in edit.matrices if table.matrix.role == "input"]
    outputs = [table for table in edit.matrices if table.matrix.role == "output"]
    return [*inputs[:1], *outputs[:1]]


def _tables(edit: Edit, solver: Solver) -> Tables:
    """The new tables as a method makes them, float32."""
    whole = [_whole(edit, solver, table) for table in _fitted(edit)]
    biases = [table for table in edit.matrices if table.matrix.role == "bias"]
    bias = _whole(edit, solver, biases[0])[:, 0] if biases else None
    return Tables(whole[0], whole[1] if len(whole) > 1 else None, bias)


def _whole(edit: Edit, solver: Solver, table: MatrixEdit) -> np.ndarray:
    """Every row of a new table, float32[V, D]: those of the source in their new places, and the made ones."""
    raw = edit.checkpoint.raw_rows(table.matrix.names[0], table.matrix.axis)
    made = solver.rows(table)
    solver.keep(table, made)  # it is asked again when the table is written
    rows = np.empty((len(table.source_of), table.matrix.width), np.float32)
    used = 0
    for start in range(0, len(rows), _ROWS):
        source = table.source_of[start : start + _ROWS]
        block, copied = rows[start : start + _ROWS], source >= 0
        block[copied] = decode(raw[source[copied]], table.matrix.dtype)
        count = int(np.count_nonzero(~copied))
        block[~copied] = made[used : used + count]
        used += count
    return rows


def plan_calibration(
    texts: Sequence[str | Path],
    source: Checkpoint,
    target: Tokenizer,
    bos: int | None,
    methods: Sequence[tuple[str, Initializer, Initializer]],
    trust_remote_code: bool,
    notes: list[str],
) -> tuple[CalibrationJob, float]:
    """Check a calibration before anything is loaded; returns it and the floating-point operations that it takes.

    bos: the id that the result's tokenizer will begin every text with where the target's does not by itself. notes: is told the
    cost. Raises InputError: not-causal, bad-text, empty-text, text-too-small, text-not-spelt.
    """
    architectures = source.config.get("architectures") or []
    if architectures and not any(word in name for name in architectures for word in ("CausalLM", "LMHeadModel")):
        raise InputError(
            "not-causal",
            f"calibration reads text with a causal language model, and this is a {architectures[0]}",
            "leave out --calibrate",
            model=source.folder,
        )
    lead = [bos] if bos is not None else list(target.leading)
    own = text_config(source.config)[1]
    positions = own.get("max_position_embeddings") or own.get("n_positions")
    passages = read_passages(texts, target, positions - len(lead) if isinstance(positions, int) else None)
    settings = Calibration()
    tokens = sum(len(passage.ids) for passage in passages)
    table = source.matrices[0]
    body = sum(int(np.prod(info.shape)) for info in source.tensors.values()) - table.rows * table.width
    work = cost(settings, tokens, body, table.rows * table.width)
    notes.append(
        f"calibration reads {sum(passage.bytes for passage in passages):,} bytes ({tokens:,} tokens) with the model and "
        f"trains on up to {min(settings.tokens, settings.epochs * tokens):,} tokens; every row of its tables will change"
    )
    return CalibrationJob(passages, lead, methods, settings, trust_remote_code), work


def candidates(has_donor: bool) -> list[tuple[str, Initializer, Initializer]]:
    """Return what `auto` chooses from when there is a text."""
    names = WITH_DONOR if has_donor else WITHOUT_DONOR
    return [(name, method, method) for name in names for method in [read_method(name)]]
