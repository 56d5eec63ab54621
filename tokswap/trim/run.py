"""Carries a planned trim out: writes the result, checks it before it takes its place, and reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.checkpoint.edit import Edit, GroupRows, MatrixEdit
from tokswap.checkpoint.gguf_file import GgufFile, beside
from tokswap.checkpoint.layout import Layout
from tokswap.checkpoint.positions import least_input
from tokswap.checkpoint.rebuilt import rebuilt_model
from tokswap.checkpoint.writer import Hooks, write_result
from tokswap.errors import OutputError
from tokswap.heal.step import heal_step, with_healing
from tokswap.init.solver import RowTask, Solver
from tokswap.report.clock import Clock, progress_bar
from tokswap.report.plan import Plan
from tokswap.report.record import CARD_NAME, REPORT_NAME, Groups, Report
from tokswap.report.result_card import result_card
from tokswap.tokenizer.loaded import to_transformers
from tokswap.trim.chat import render_chats
from tokswap.trim.checks import ModelPair, failures, reload_figures, token_figures, unreachable
from tokswap.trim.options import TrimOptions
from tokswap.trim.outputs import model_figures, sequences
from tokswap.trim.rebuild import Trimmed
from tokswap.trim.windows import Window


@dataclass(frozen=True)
class TrimJob:
    """A trim that has been checked and is ready to run; from `plan_trim`.

    Attributes:
        plan: What will happen.
        edit: What is written.
        layout: The weight files.
        task: What padding rows are computed from.
        trimmed: The tokenizer of the result.
        options: What the user asked for.
        sample: Texts that were counted, to check the result with.
        held_out: Other texts to measure the result on.
        compares_outputs: Whether the outputs of both models are compared.
        gguf: The GGUF file, None without one.
    """

    plan: Plan
    edit: Edit
    layout: Layout
    task: RowTask
    trimmed: Trimmed
    options: TrimOptions
    sample: tuple[Window, ...]
    held_out: tuple[Window, ...] = ()
    compares_outputs: bool = True
    gguf: GgufFile | None = None

    def run(self) -> Report:
        """Write the result, or change loaded objects, and check it.

        Returns:
            The Report, which also lies in the result as tokswap.json.

        Raises:
            OutputError: not-exact where the new tokenizer tokenizes text differently; check-failed where the loaded
                result does not do what the source does; disk-full, cannot-write, output-exists. Nothing is left then.
            InputError: cannot-run, remote-code.
        """
        out = Path(self.plan.names.out) if self.plan.names.out else None
        step = heal_step(self.options, self.task.source)
        return self._made(out) if step is None else with_healing(self._made, out, step, gguf=self.gguf)

    def _made(self, out: Path | None) -> Report:
        """Do all but the healing. out: where the result is written."""
        clock = Clock()
        self.trimmed.tokenizer.check()
        checks = self._tokenizer_checks()
        clock.stop("prepare")
        if out is None:
            return self._in_memory(checks, clock)
        reports: list[Report] = []

        def check(folder: Path) -> None:
            clock.stop("write")
            checks.update(self._folder_checks(folder))
            if wrong := failures(checks):
                hint = "please report this, with the command; nothing was left of the result"
                raise OutputError("check-failed", f"the result is not exact: {'; '.join(wrong)}", hint)
            clock.stop("check")
            write_gguf(folder)

        def last_files() -> Mapping[str, bytes]:
            reports.append(self._report(checks, clock))
            return {
                REPORT_NAME: reports[0].to_json(),
                CARD_NAME: result_card(reports[0].summary(), self.edit.configs.model, self.task.source.path),
            }

        options = self.options
        early = self.gguf if not options.heal else None  # a healed model is written as GGUF once it is healed
        with progress_bar(self.layout.nbytes, show=options.progress) as bar, beside(early) as write_gguf:
            hooks = Hooks(check=check, last_files=last_files, progress=bar.update)
            write_result(self.edit, self.layout, out, self._solve, link=options.link, force=options.force, hooks=hooks)
        return reports[0]

    def _solve(self, group: tuple[MatrixEdit, ...]) -> GroupRows:
        """Padding is all that a trim computes."""
        if any(edit.computed for edit in group):
            return Solver(self.task).solve(group)
        return {edit.name: np.zeros((0, edit.matrix.width), np.float32) for edit in group}

    def _tokenizer_checks(self) -> dict[str, Any]:
        """Compare both tokenizers on the texts. Raises OutputError not-exact."""
        before = self.task.source.tokenizer
        checks: dict[str, Any] = {"corpus": token_figures(before, self.trimmed, self.sample)}
        if self.held_out:
            checks["held_out"] = token_figures(before, self.trimmed, self.held_out)
        if wrong := failures(checks):
            raise OutputError("not-exact", wrong[0], "please report this, with the tokenizer and the command")
        checks["failed"] = []  # a check that fails ends the run; tokswap.json keeps the key
        checks["unreachable"] = [unreachable(before), unreachable(self.trimmed.tokenizer)]
        return checks

    def _folder_checks(self, folder: Path) -> dict[str, Any]:
        """Compare the written folder with the source."""
        source = self.task.source
        if source.path is None:
            return {}
        texts = tuple(window.text for window in self.sample) or render_chats(self.trimmed.tokenizer).plain
        pair = ModelPair(
            before=source.path,
            after=folder,
            architecture=source.checkpoint.facts.architecture,
            device=self.options.device,
            trust_remote_code=self.options.trust_remote_code,
        )
        checks: dict[str, Any] = {"reloaded": reload_figures(pair, self.trimmed, texts)}
        ids = sequences(source.tokenizer, self.trimmed, texts, least_input(source.checkpoint.config))
        if self.compares_outputs and ids:
            auto = self.options.check == "auto"
            figures = model_figures(pair, self.task.alignment.source_of, ids, may_fail=auto)
            checks["not_compared" if "reason" in figures else "model"] = figures
        return checks

    def _in_memory(self, checks: dict[str, Any], clock: Clock) -> Report:
        source = self.task.source
        assert source.loaded is not None
        model = rebuilt_model(source.loaded.model, self.edit, self.layout, self._solve)
        tokenizer = to_transformers(self.trimmed.tokenizer, self.edit.configs.tokenizer, bos=None)
        clock.stop("write")
        return dataclasses.replace(self._report(checks, clock), loaded=(model, tokenizer))

    def _report(self, checks: Mapping[str, Any], clock: Clock) -> Report:
        alignment = self.task.alignment
        clock.end()
        groups = Groups.of(alignment, self.trimmed.tokenizer.vocabulary, self.task.source.tokenizer.vocabulary)
        return Report(plan=self.plan, alignment=alignment, seconds=clock.seconds, checks=checks, groups=groups)
