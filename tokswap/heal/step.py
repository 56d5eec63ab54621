"""Healing as the last step of a transplant, a trim, a draft or an ensemble."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokswap.checkpoint.gguf_file import GgufFile, beside
from tokswap.checkpoint.loaded import ModelLike
from tokswap.checkpoint.source import SourceModel
from tokswap.errors import InputError
from tokswap.heal.options import HealOptions
from tokswap.report.record import REPORT_NAME, Report
from tokswap.storage.atomic import scratch, workspace

_LEAST_BYTES = 6000


@dataclass(frozen=True)
class HealStep:
    """What a result is trained on once it is made.

    Attributes:
        texts: Files, folders or patterns.
        teacher: The model to learn from.
        settings: Options of healing by name, where they are not the usual ones.
    """

    texts: Sequence[str | Path]
    teacher: ModelLike
    settings: Mapping[str, Any] = field(default_factory=dict)


def check_step(
    texts: Sequence[str | Path],
    source: SourceModel,
    *,
    flag: str = "--heal",
    train: str = "adapter",
    self_text: int | None = None,
    trust_remote_code: bool = False,
) -> tuple[str, ...]:
    """Check before a run what healing its result needs.

    Args:
        texts: What the user gave with the flag; nothing is checked where there is no text at all.
        source: The source model.
        flag: How the user asked for it.
        train: What learns, as `--train` says.
        self_text: Bytes of text that the teacher writes, None for none.
        trust_remote_code: Whether code that comes with the model may run.

    Returns:
        What the user should know.

    Raises:
        UsageError: cannot-shard.
        InputError: missing-extra, not-causal, not-text-only, quantised-body, no-lora-targets, no-plain-embeddings,
            text-too-small, and what reading text raises.
    """
    if not texts and not self_text:
        return ()
    # Here, because a plan without healing need not wait for numba.
    from tokswap.heal.inputs import check_body, check_model, check_surroundings
    from tokswap.heal.text import text_parts

    check_surroundings()
    check_model(source.checkpoint)
    reach = check_body(source, train, trust_remote_code=trust_remote_code)
    size = sum(len(part.encode("utf-8")) for _, part in text_parts(texts, "text"))
    if size + (self_text or 0) < _LEAST_BYTES:
        message = f"the text of {flag} has {size:,} bytes, too few to learn from"
        raise InputError("text-too-small", message, "give 10 kB or more; 100 kB is a good start")
    read = f"{size:,} bytes of text" if size else ""
    written = f"{self_text:,} bytes that the teacher writes" if self_text else ""
    text = " and ".join(part for part in (read, written) if part)
    more = reach.notes if reach is not None and train == "adapter" else ()
    return (f"then the result is trained on {text}; `tokswap heal --dry-run` states what that takes", *more)


def with_healing(
    make: Callable[[Path | None], Report],
    out: Path | None,
    step: HealStep,
    options: HealOptions,
    *,
    gguf: GgufFile | None = None,
) -> Report:
    """Make a result, train it and write it.

    The result is made in a temporary folder, so a run that ends while it trains leaves nothing at `out`. The same
    run, started again, goes on from the last checkpoint of its training.

    Args:
        make: Makes the untrained result in a folder, or in memory where it is given None.
        out: The folder of the result, None for one in memory.
        step: What to train on, and from which teacher.
        options: How; `force` says whether a model folder at `out` may be replaced.
        gguf: The GGUF file of the result, None without one.

    Returns:
        The report, with what healing gave under `evidence["healing"]`. A result that healing does not improve is
        written without it, and a note says so.

    Raises:
        InputError, OutputError: what `make` and healing raise, but not-better and training-diverged.
    """
    if out is None:
        return _healed(make(None), None, step, options, write_gguf=_nothing)
    real = out.resolve()
    with scratch(real) as work, beside(gguf) as write_gguf:
        made = work / real.name
        return _healed(make(made), made, step, options, write_gguf=write_gguf)


def _nothing(folder: Path) -> None:
    """Write no GGUF file."""


def _healed(
    report: Report, made: Path | None, step: HealStep, options: HealOptions, *, write_gguf: Callable[[Path], None]
) -> Report:
    """Train a result, and write it to the folder that its report names. made: where it lies now."""
    from tokswap.heal.inputs import open_inputs
    from tokswap.heal.plan import plan_of
    from tokswap.heal.run import HealJob

    options = dataclasses.replace(options, teacher=step.teacher, **step.settings)
    model: ModelLike = report.loaded if report.loaded is not None else made
    inputs = open_inputs(model, step.texts, options, report)
    plan = plan_of(inputs, report.path)
    if made is not None:
        plan = dataclasses.replace(plan, model=str(report.path))
    try:
        done = HealJob(plan, inputs, made=made is not None, check=write_gguf).run()
    except InputError as error:
        if error.code not in ("not-better", "training-diverged"):
            raise
        report = dataclasses.replace(
            report, notes=(*report.notes, f"{error.message}; the result is written without it")
        )
        if made is not None and report.path is not None:
            _put(made, report, write_gguf, force=options.force)
        return report
    evidence = {**report.evidence, "healing": {**done.healing, "seconds": done.seconds["all"]}}
    return dataclasses.replace(report, evidence=evidence, loaded=done.loaded)


def _put(made: Path, report: Report, write_gguf: Callable[[Path], None], *, force: bool) -> None:
    """Put an untrained result in its place, with its report."""
    assert report.path is not None
    with workspace(report.path.resolve(), force) as work:
        write_gguf(made)
        for path in made.iterdir():
            path.rename(work / path.name)
        (work / REPORT_NAME).write_bytes(report.to_json())
