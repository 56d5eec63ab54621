"""Healing as the last step of a transplant, a trim, a draft or an ensemble."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tokswap.checkpoint.gguf_file import GgufFile, beside
from tokswap.checkpoint.loaded import ModelLike
from tokswap.checkpoint.reader import Checkpoint
from tokswap.errors import InputError
from tokswap.heal.inputs import check_extra, check_model
from tokswap.heal.options import HealOptions
from tokswap.heal.text import text_parts
from tokswap.report.record import Report

_LEAST_BYTES = 6000


def check_step(texts: Sequence[str | Path], source: Checkpoint) -> tuple[str, ...]:
    """Check before a run what healing its result needs.

    Args:
        texts: What the user gave with --heal; nothing is checked without any.
        source: The source model.

    Returns:
        What the user should know.

    Raises:
        InputError: missing-extra, not-causal, not-text-only, quantised-body, text-too-small, and what reading
            text raises.
    """
    if not texts:
        return ()
    check_extra()
    check_model(source)
    size = sum(len(part.encode("utf-8")) for _, part in text_parts(texts, "text"))
    if size < _LEAST_BYTES:
        message = f"the text of --heal has {size:,} bytes, too few to learn from"
        raise InputError("text-too-small", message, "give 10 kB or more; 100 kB is a good start")
    return (f"then the result is trained on {size:,} bytes of text; `tokswap heal --dry-run` states what that takes",)


def healed(
    report: Report, texts: Sequence[str | Path], options: HealOptions, *, gguf: GgufFile | None = None
) -> Report:
    """Heal the result of a run in its place.

    Args:
        report: What the run has done.
        texts: What to train on.
        options: How, and from which teacher. `force` is set: the result is replaced.
        gguf: The GGUF file of the result, which is written once it is healed; None without one.

    Returns:
        The report, with what healing gave under `evidence["healing"]`. A result that healing does not improve stays as
        it is.
    """
    from tokswap.heal.inputs import open_inputs
    from tokswap.heal.plan import plan_of
    from tokswap.heal.run import HealJob

    model: ModelLike = report.loaded if report.loaded is not None else report.path
    options = dataclasses.replace(options, force=True)
    inputs = open_inputs(model, texts, options, report.alignment.missing)
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
