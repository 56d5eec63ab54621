"""Carries a planned transplant out: computes rows, writes the result (or changes loaded objects), and reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokswap.checkpoint.edit import Edit
from tokswap.checkpoint.gguf_file import GgufFile, beside
from tokswap.checkpoint.layout import Layout
from tokswap.checkpoint.rebuilt import rebuilt_model
from tokswap.checkpoint.writer import Hooks, write_result
from tokswap.distributed import idle_notes
from tokswap.heal.step import HealStep, with_healing
from tokswap.init.diagnostics import row_notes, row_report
from tokswap.init.solver import RowTask, Solver, evidence_of
from tokswap.report.clock import Clock, progress_bar
from tokswap.report.plan import Plan
from tokswap.report.record import CARD_NAME, REPORT_NAME, Groups, Report
from tokswap.report.result_card import result_card
from tokswap.tokenizer.loaded import to_transformers
from tokswap.transplant.prepared import Prepared


@dataclass(frozen=True)
class TransplantJob:
    """A transplant that has been checked and is ready to run; from `plan_transplant`.

    Attributes:
        plan: What will happen.
        prepared: Inputs, options, alignment and configs.
        edit: What is written.
        layout: The weight files.
        task: What new rows are computed from.
        gguf: The GGUF file, None without one.
        step: The training of the result, None without one.
        check: Checks the written folder before it takes its place, and returns figures for the report; None for none.
    """

    plan: Plan
    prepared: Prepared
    edit: Edit
    layout: Layout
    task: RowTask
    gguf: GgufFile | None = None
    step: HealStep | None = None
    check: Callable[[Path], Mapping[str, Any]] | None = None

    def run(self) -> Report:
        """Compute the missing rows and write the result, or change loaded objects.

        Returns:
            The Report, which also lies in the result as tokswap.json.

        Raises:
            InputError: nan-in-table, method-failed.
            OutputError: disk-full, cannot-write, output-exists, and what `check` raises. Nothing is written then.
        """
        out = Path(self.plan.names.out) if self.plan.names.out else None
        return self._made(out) if self.step is None else with_healing(self._made, out, self.step, gguf=self.gguf)

    def _made(self, out: Path | None) -> Report:
        """Do all but the healing. out: where the result is written."""
        clock = Clock()
        self.task.target.check()
        clock.stop("prepare")
        solver = Solver(self.task)
        if out is None:
            return self._in_memory(solver, clock)
        reports: list[Report] = []
        checks: dict[str, Any] = {}

        def check(folder: Path) -> None:
            checks.update(self.check(folder) if self.check is not None else {})
            write_gguf(folder)

        def last_files() -> Mapping[str, bytes]:
            report = self._report(solver, clock)
            reports.append(dataclasses.replace(report, checks={**report.checks, **checks}))
            return self._documents(reports[0])

        options = self.prepared.options
        early = self.gguf if self.step is None else None  # a healed model is written as GGUF once it is healed
        with progress_bar(self.layout.nbytes, show=options.progress) as bar, beside(early) as write_gguf:
            hooks = Hooks(check=check, last_files=last_files, progress=bar.update)
            write_result(self.edit, self.layout, out, solver.solve, link=options.link, force=options.force, hooks=hooks)
        return reports[0]

    def _in_memory(self, solver: Solver, clock: Clock) -> Report:
        """Change a copy of the loaded model."""
        source, target, edit = self.task.source, self.prepared.inputs.target, self.edit
        assert source.loaded is not None
        model = rebuilt_model(source.loaded.model, edit, self.layout, solver.solve)
        tokenizer = to_transformers(
            target.tokenizer, edit.configs.tokenizer, bos=self.prepared.bos, original=target.original
        )
        return dataclasses.replace(self._report(solver, clock), loaded=(model, tokenizer))

    def _report(self, solver: Solver, clock: Clock) -> Report:
        alignment = self.task.alignment
        vocabulary = self.task.target.vocabulary
        clock.add("rows", solver.seconds)
        clock.end(rest="write")
        method_notes = [note for group in solver.solved.values() for note in group.result.notes]
        notes = [
            *dict.fromkeys(method_notes),
            *row_notes(vocabulary, alignment.missing, solver.solved),
            *idle_notes(self.task.context.backend),
        ]
        return Report(
            plan=self.plan,
            alignment=alignment,
            seconds=clock.seconds,
            checks={f"{role} rows made": group.count for role, group in solver.solved.items()},
            rows=row_report(self.task, solver.solved),
            notes=tuple(notes),
            evidence=evidence_of(solver),
            groups=Groups.of(alignment, vocabulary, self.task.source.tokenizer.vocabulary),
        )

    def _documents(self, report: Report) -> dict[str, bytes]:
        """The report and the model card."""
        source, target = self.task.source.path, self.prepared.inputs.target.path
        card = result_card(report.summary(), self.edit.configs.model, source, target)
        return {REPORT_NAME: report.to_json(), CARD_NAME: card}
