"""Carries a planned transplant out: computes rows, writes the result (or changes loaded objects), and reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tokswap.checkpoint.edit import Edit
from tokswap.checkpoint.gguf_file import GgufFile, beside
from tokswap.checkpoint.layout import Layout, lay_out
from tokswap.checkpoint.loaded import rebuilt_model
from tokswap.checkpoint.writer import Hooks, write_result
from tokswap.distributed import idle_notes
from tokswap.heal.calibrate import CalibrationJob, Outcome
from tokswap.heal.options import HealOptions
from tokswap.heal.step import HealStep, healed
from tokswap.init.diagnostics import row_notes, row_report
from tokswap.init.solver import Methods, RowTask, Solver, evidence_of
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
        calibration: The calibration, None without one.
        gguf: The GGUF file, None without one.
        step: A training of the result in place of the one that the options name.
    """

    plan: Plan
    prepared: Prepared
    edit: Edit
    layout: Layout
    task: RowTask
    calibration: CalibrationJob | None = None
    gguf: GgufFile | None = None
    step: HealStep | None = None

    @property
    def training(self) -> HealStep | None:
        """The training of the result, None without one."""
        options, source = self.prepared.options, self.task.source
        if self.step is not None or not options.heal:
            return self.step
        return HealStep(options.heal, source.loaded or source.name)

    def run(self) -> Report:
        """Compute the missing rows and write the result, or change loaded objects.

        Returns:
            The Report, which also lies in the result as tokswap.json.

        Raises:
            InputError: nan-in-table, method-failed.
            OutputError: disk-full, cannot-write, output-exists. Nothing is written then.
        """
        report = self._made()
        options = self.prepared.options
        if self.training is None:
            return report
        return healed(
            report,
            self.training,
            HealOptions(
                device=options.device,
                seed=options.seed,
                progress=options.progress,
                trust_remote_code=options.trust_remote_code,
            ),
            gguf=self.gguf,
        )

    def _made(self) -> Report:
        """Do all but the healing."""
        clock = Clock()
        self.task.target.check()
        clock.stop("prepare")
        if self.calibration is None:
            outcome = Outcome(Solver(self.task), self.edit)
        else:
            outcome = self.calibration.run(self.edit, self.task.source, self._solver_of)
            clock.stop("calibrate", without=outcome.solver.seconds)
        if not self.plan.names.out:
            return self._in_memory(outcome, clock)
        reports: list[Report] = []

        def last_files() -> Mapping[str, bytes]:
            reports.append(self._report(outcome, clock))
            return self._documents(reports[0])

        layout = self.layout if outcome.edit is self.edit else lay_out(outcome.edit)
        options = self.prepared.options
        early = self.gguf if self.training is None else None  # a healed model is written as GGUF once it is healed
        with progress_bar(layout.nbytes, "write", show=options.progress) as bar, beside(early) as write_gguf:
            hooks = Hooks(check=write_gguf, last_files=last_files, progress=bar.update)
            out = Path(self.plan.names.out)
            write_result(outcome.edit, layout, out, outcome.solve, link=options.link, force=options.force, hooks=hooks)
        return reports[0]

    def _solver_of(self, methods: Methods) -> Solver:
        return Solver(dataclasses.replace(self.task, methods=methods))

    def _in_memory(self, outcome: Outcome, clock: Clock) -> Report:
        """Change a copy of the loaded model."""
        source, target, edit = self.task.source, self.prepared.inputs.target, outcome.edit
        assert source.loaded is not None
        model = rebuilt_model(source.loaded.model, edit, lay_out(edit), outcome.solve)
        tokenizer = to_transformers(
            target.tokenizer, edit.configs.tokenizer, bos=self.prepared.bos, original=target.original
        )
        return dataclasses.replace(self._report(outcome, clock), loaded=(model, tokenizer))

    def _report(self, outcome: Outcome, clock: Clock) -> Report:
        alignment, solver = self.task.alignment, outcome.solver
        vocabulary = self.task.target.vocabulary
        clock.add("rows", solver.seconds)
        clock.end(rest="write")
        method_notes = [note for group in solver.solved.values() for note in group.result.notes]
        notes = [
            *dict.fromkeys(method_notes),
            *outcome.notes,
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
            evidence={**evidence_of(solver), **outcome.evidence},
            calibrated=outcome.calibrated,
            groups=Groups.of(alignment, vocabulary, self.task.source.tokenizer.vocabulary),
        )

    def _documents(self, report: Report) -> dict[str, bytes]:
        """The report and the model card."""
        folder = self.task.source.checkpoint.folder if self.task.source.loaded is None else None
        target = self.prepared.inputs.target.path
        card = result_card(report.summary(), self.edit.configs.model, folder, target)
        return {REPORT_NAME: report.to_json(), CARD_NAME: card}
