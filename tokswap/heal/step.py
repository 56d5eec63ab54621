"""Healing as the last step of a transplant, a trim, a draft or an ensemble."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokswap.checkpoint.gguf_file import GgufFile, beside
from tokswap.checkpoint.loaded import ModelLike
from tokswap.checkpoint.reader import Checkpoint
from tokswap.errors import InputError
from tokswap.heal.options import HealOptions
from tokswap.report.record import Report

_LEAST_BYTES = 6000


@dataclass(frozen=True)
class HealStep:
    """What a result is trained on once it is made.

    Attributes:
        texts: Files, folders or patterns.
        teacher: The model to learn from.
        self_text: Bytes of text that the teacher writes, None for none.
        settings: Options of healing by name, where they are not the usual ones.
    """

    texts: Sequence[str | Path]
    teacher: ModelLike
    self_text: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def check_step(
    texts: Sequence[str | Path], source: Checkpoint, *, flag: str = "--heal", self_text: int | None = None
) -> tuple[str, ...]:
    """Check before a run what healing its result needs.

    Args:
        texts: What the user gave with the flag; nothing is checked where there is no text at all.
        source: The source model.
        flag: How the user asked for it.
        self_text: Bytes of text that the teacher writes, None for none.

    Returns:
        What the user should know.

    Raises:
        InputError: missing-extra, not-causal, not-text-only, quantised-body, text-too-small, and what reading
            text raises.
    """
    if not texts and not self_text:
        return ()
    # Here, because a plan without healing need not wait for numba.
    from tokswap.heal.inputs import check_extra, check_model
    from tokswap.heal.text import text_parts

    check_extra()
    check_model(source)
    size = sum(len(part.encode("utf-8")) for _, part in text_parts(texts, "text"))
    if size + (self_text or 0) < _LEAST_BYTES:
        message = f"the text of {flag} has {size:,} bytes, too few to learn from"
        raise InputError("text-too-small", message, "give 10 kB or more; 100 kB is a good start")
    read = f"{size:,} bytes of text" if size else ""
    written = f"{self_text:,} bytes that the teacher writes" if self_text else ""
    text = " and ".join(part for part in (read, written) if part)
    return (f"then the result is trained on {text}; `tokswap heal --dry-run` states what that takes",)


def healed(report: Report, step: HealStep, options: HealOptions, *, gguf: GgufFile | None = None) -> Report:
    """Heal the result of a run in its place.

    Args:
        report: What the run has done.
        step: What to train on, and from which teacher.
        options: How. The result is replaced.
        gguf: The GGUF file of the result, which is written once it is healed; None without one.

    Returns:
        The report, with what healing gave under `evidence["healing"]`. A result that healing does not improve stays as
        it is.
    """
    from tokswap.heal.inputs import open_inputs
    from tokswap.heal.plan import plan_of
    from tokswap.heal.run import HealJob

    model: ModelLike = report.loaded if report.loaded is not None else report.path
    more = {"teacher": step.teacher, "self_text": step.self_text, "force": True, **step.settings}
    options = dataclasses.replace(options, **more)
    inputs = open_inputs(model, step.texts, options, report)
    try:
        done = HealJob(plan_of(inputs, report.path), inputs).run()
    except InputError as error:
        if error.code not in ("not-better", "training-diverged"):
            raise
        report = dataclasses.replace(report, notes=(*report.notes, f"{error.message}; the result stays as it was"))
    else:
        evidence = {**report.evidence, "healing": {**done.healing, "seconds": done.seconds["all"]}}
        report = dataclasses.replace(report, evidence=evidence, loaded=done.loaded)
    if gguf is not None and report.path is not None:
        with beside(gguf) as write_gguf:
            write_gguf(report.path)
    return report
