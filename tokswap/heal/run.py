"""Carries a planned healing out: teaches, trains, judges, writes the result, and reports."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokswap.checkpoint.layout import lay_out
from tokswap.checkpoint.rebuilt import rebuilt_model
from tokswap.checkpoint.writer import Hooks, write_result
from tokswap.errors import InputError
from tokswap.evaluation.models import evaluation_mode
from tokswap.heal.identity import identity
from tokswap.heal.inputs import HealInputs
from tokswap.heal.judge import excess
from tokswap.heal.result import HealPlan, HealReport, origin_of
from tokswap.heal.team import Team
from tokswap.report.card import healed_card
from tokswap.report.clock import Clock, progress_bar
from tokswap.report.record import CARD_NAME, REPORT_NAME
from tokswap.report.result_card import result_card
from tokswap.seeds import own_seed
from tokswap.storage.atomic import CACHE, held, workspace, write_error
from tokswap.storage.json_files import json_bytes
from tokswap.storage.resolve import cache_folder, lasting_name

_CURVE = 200
"""Points of the loss that the report keeps."""
_SAME = "is healing the same model with the same text and settings"
_SAME_HINT = "wait for it: it makes the same result, of which you can make a copy"


@dataclass(frozen=True)
class HealJob:
    """A healing that has been checked and is ready to run; from `plan_heal`.

    Attributes:
        plan: What will happen.
        inputs: The models and the text.
        made: Whether the model was made by this run: then it is known by its weights, not by the place and time of its
            files.
        check: Gets the written folder before it takes its place.
    """

    plan: HealPlan
    inputs: HealInputs
    made: bool = False
    check: Callable[[Path], object] = lambda folder: None

    def run(self) -> HealReport:
        """Heal the model and write the result, or change a copy of loaded objects.

        A run that was killed goes on from its last checkpoint when it is started again.

        Returns:
            The report, whose main part also lies in the result as tokswap.json.

        Raises:
            InputError: not-better where the held-out text is no easier to predict than before; training-diverged.
            OutputError: disk-full, cannot-write, output-exists, output-in-use. Nothing is written then.
        """
        from tokswap.heal.stages import learn, teach

        clock = Clock()
        cache = cache_folder() / "heal"
        folder = cache / f"run-{self._key()}"
        team = Team.of(self.inputs.options.device)
        with ExitStack() as stack:
            if team.leads:
                try:
                    stack.enter_context(held(folder, wait=False, use=_SAME, hint=_SAME_HINT))
                except OSError as error:
                    raise write_error(error, folder, CACHE) from error
            for side in (self.inputs.teacher, self.inputs.student):
                if side.loaded is not None:
                    stack.enter_context(evaluation_mode(side.loaded.model))
            # Those that share the teacher read together; otherwise the others wait for what the leader has read.
            readers = team if self.inputs.options.shard else Team()
            read = teach(self.inputs, cache, readers) if team.leads or self.inputs.options.shard else None
            taught = team.shared(read)
            assert taught is not None
            clock.stop("teach")
            with own_seed(self.inputs.options.seed):
                learnt = learn(self.inputs, taught, folder, team=team)
            clock.stop("train")
            healing = {**_figures(taught, learnt), "processes": team.size}
            if not team.leads:
                return HealReport(self.plan, healing, tensors=(), seconds=clock.seconds)
            if not learnt.better:
                shutil.rmtree(folder, ignore_errors=True)
                raise _not_better(self.plan, healing)
            report = self._written(learnt.student, healing, clock)
            shutil.rmtree(folder, ignore_errors=True)
        return report

    def _key(self) -> str:
        """A name for this training, another one where anything differs that decides its result."""
        inputs, options = self.inputs, self.inputs.options
        sides = [identity(inputs.student, by_content=self.made), inputs.teacher_identity]
        found = hashlib.sha256(repr((sides, options.recorded())).encode())
        if inputs.text is not None:
            for passage in (*inputs.text.training, *inputs.text.held_out):
                found.update(passage.student.ids.tobytes())
        return found.hexdigest()[:20]

    def _written(self, student: Any, healing: Mapping[str, Any], clock: Clock) -> HealReport:
        from tokswap.heal.changes import changed_edit

        source, options = self.inputs.student, self.inputs.options
        origin = origin_of(source.path) if source.path is not None else {}
        report = HealReport(self.plan, healing, tensors=(), seconds={}, origin=origin)
        if options.save == "adapter" and self.plan.out:
            return self._adapter(student, report, clock)
        edit, solve = changed_edit(source, student, trust_remote_code=options.trust_remote_code)
        whole = [one for one in edit.matrices if one.computed == len(one.source_of)]  # verify compares the others
        tensors = tuple(name for one in whole for name in one.names)
        report = dataclasses.replace(report, tensors=(*tensors, *edit.changed))
        layout = lay_out(edit)
        if not self.plan.out:
            assert source.loaded is not None
            model = rebuilt_model(source.loaded.model, edit, layout, solve)
            clock.end(rest="write")
            return dataclasses.replace(report, seconds=clock.seconds, loaded=(model, source.loaded.tokenizer))
        reports: list[HealReport] = []

        def last_files() -> Mapping[str, bytes]:
            clock.end(rest="write")
            reports.append(dataclasses.replace(report, seconds=clock.seconds))
            document = reports[0].document()
            return {REPORT_NAME: _report_bytes(document), CARD_NAME: self._card(document)}

        with progress_bar(layout.nbytes, show=options.progress) as bar:
            hooks = Hooks(check=self.check, last_files=last_files, progress=bar.update)
            write_result(edit, layout, Path(self.plan.out), solve, link=options.link, force=options.force, hooks=hooks)
        return reports[0]

    def _adapter(self, student: Any, report: HealReport, clock: Clock) -> HealReport:
        """Write a PEFT folder: the adapter and the new embeddings."""
        out, options = Path(self.plan.out).resolve(), self.inputs.options
        with workspace(out, options.force) as work:
            base = lasting_name(self.inputs.student.checkpoint.folder)
            student.adapted.peft_config["default"].base_model_name_or_path = base
            student.adapted.save_pretrained(work, save_embedding_layers=True)
            clock.end(rest="write")
            report = dataclasses.replace(report, seconds=clock.seconds)
            (work / REPORT_NAME).write_bytes(_report_bytes({**report.document(), "tokens": {}}))
            (work / CARD_NAME).write_bytes(healed_card(report.document(), None).encode())
        return report

    def _card(self, document: Mapping[str, Any]) -> bytes:
        source = self.inputs.student
        if "plan" in document:
            return result_card(document, source.checkpoint.config, None)
        path = source.path / CARD_NAME if source.path is not None else None
        return healed_card(document, path.read_text("utf-8", "replace") if path and path.is_file() else None).encode()


def _figures(taught: Any, learnt: Any) -> dict[str, Any]:
    """What was measured, for the report."""
    course, text = learnt.course, taught.text
    every = max(1, len(course.loss) // _CURVE)
    return {
        "excess_before": excess(learnt.before, taught.judged),
        "excess_after": excess(learnt.after, taught.judged),
        "teacher_bits_per_byte": round(taught.judged.bits_per_byte, 5),
        "text": {
            "bytes": text.bytes,
            "tokens": text.tokens,
            "passages": len(text.training),
            "held_out": len(text.held_out),
            "written_by_the_teacher": taught.written,
        },
        "steps": course.loss[-1][0] if course.loss else 0,
        "loss": [list(point) for point in course.loss[::every]],
        "held_out": [
            [step, tokens, round(bits - taught.judged.bits_per_byte, 5)] for step, tokens, bits in course.held_out
        ],
        "stopped": course.stopped,
        "teaching": dict(taught.figures),
    }


def _report_bytes(document: Mapping[str, Any]) -> bytes:
    """Return tokswap.json: readable, but for its list of tokens, which takes one line."""
    head = {key: value for key, value in document.items() if key != "tokens"}
    body = json_bytes(head).decode()
    tokens = json_bytes(document.get("tokens", {}), indent=None).decode()
    return f'{body[:-2]},\n  "tokens": {tokens}\n}}\n'.encode()


def _not_better(plan: HealPlan, healing: Mapping[str, Any]) -> InputError:
    before, after = (healing[f"excess_{when}"]["all"] for when in ("before", "after"))
    return InputError(
        "not-better",
        f"healing did not help: the excess on the held-out text went from {before:.4f} to {after:.4f} bits per byte",
        "nothing was written; give more text, in the languages that the model is for, or a smaller --rate",
        model=plan.model,
    )
