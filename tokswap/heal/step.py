"""Healing as the last step of a transplant, a trim, a draft or an ensemble."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokswap.checkpoint.gguf_file import GgufFile, beside
from tokswap.checkpoint.loaded import ModelLike
from tokswap.checkpoint.source import SourceModel
from tokswap.errors import InputError, count_of
from tokswap.heal.options import HealOptions, HealStepOptions
from tokswap.options.declare import Options
from tokswap.report.record import REPORT_NAME, Report
from tokswap.storage.atomic import scratch, workspace
from tokswap.tokenizer.tokenizer import Tokenizer

_SHARED = ("device", "seed", "field", "progress", "trust_remote_code", "force")
"""Options that a command and the training of its result have in common."""


@dataclass(frozen=True)
class HealStep:
    """What a result is trained on once it is made, and how.

    Attributes:
        texts: Files, folders or patterns.
        options: The options of the training; `teacher` is set.
        flag: How the user asked for it.
        one_tokenizer: Whether the teacher has the tokenizer of the result, as the target of a draft has.
    """

    texts: Sequence[str | Path]
    options: HealOptions
    flag: str = "--heal"
    one_tokenizer: bool = False


def heal_step(options: HealStepOptions, source: SourceModel) -> HealStep | None:
    """Return the training that the options of a command ask for, None without one. The source model teaches."""
    if not options.heal:
        return None
    teacher = source.loaded or source.name
    return HealStep(options.heal, HealOptions(teacher=teacher, train=options.heal_train, **shared_options(options)))


def shared_options(options: Options) -> dict[str, Any]:
    """Return the options of a command that its training takes over."""
    return {name: getattr(options, name) for name in _SHARED if hasattr(options, name)}


def check_training(step: HealStep | None, source: SourceModel) -> tuple[str, ...]:
    """Check before a run that its result can be trained, and return notes. No text is read.

    Args:
        step: The training; nothing is checked without one.
        source: The source model.

    Raises:
        UsageError: cannot-shard.
        InputError: missing-extra, not-causal, not-text-only, quantised-body, no-lora-targets, no-plain-embeddings.
    """
    if step is None:
        return ()
    # Here, because a plan without healing need not wait for numba.
    from tokswap.heal.inputs import check_body, check_model, check_surroundings

    train = step.options.train
    check_surroundings()
    check_model(source.checkpoint)
    reach = check_body(source, train, trust_remote_code=step.options.trust_remote_code)
    return reach.notes if reach is not None and train == "adapter" else ()


def check_text(step: HealStep | None, source: SourceModel, student: Tokenizer) -> tuple[str, ...]:
    """Check before a run that there is enough text to train its result on, and return a note.

    Args:
        step: The training; nothing is checked without one.
        source: The source model.
        student: The tokenizer of the result.

    Raises:
        InputError: text-too-small, text-changed, and what reading text raises.
    """
    if step is None:
        return ()
    from tokswap.heal.text import Side, check_amount, paired_text, text_parts

    options, positions = step.options, source.checkpoint.facts.positions
    teacher = student if step.one_tokenizer else source.tokenizer
    sides = [Side(tokenizer, tokenizer.leading, positions) for tokenizer in (teacher, student)]
    found = []
    if step.texts:
        parts = text_parts(step.texts, options.field)
        text = paired_text(parts, sides[0], sides[1], share=options.held_out, name=f"the text of {step.flag}")
        found.append(f"{count_of(text.bytes + sum(one.bytes for one in text.held_out), 'byte')} of text")
    else:
        check_amount(options.self_text or 0)
    if options.self_text:
        found.append(f"{count_of(options.self_text, 'byte')} that the teacher writes")
    how = f"then the result is trained on {' and '.join(found)}"
    return (f"{how}; `tokswap heal --dry-run` states what that takes",)


def with_healing(
    make: Callable[[Path | None], Report],
    out: Path | None,
    step: HealStep,
    *,
    gguf: GgufFile | None = None,
) -> Report:
    """Make a result, train it and write it.

    The result is made in a temporary folder, so a run that ends while it trains leaves nothing at `out`. The same
    run, started again, goes on from the last checkpoint of its training.

    Args:
        make: Makes the untrained result in a folder, or in memory where it is given None.
        out: The folder of the result, None for one in memory.
        step: What to train on, and how; its `force` says whether a model folder at `out` may be replaced.
        gguf: The GGUF file of the result, None without one.

    Returns:
        The report, with what healing gave under `evidence["healing"]`. A result that healing does not improve is
        written without it, and a note says so.

    Raises:
        InputError, OutputError: what `make` and healing raise, but not-better and training-diverged.
    """
    if out is None:
        return _healed(make(None), None, step, write_gguf=_nothing)
    real = out.resolve()
    with scratch(real) as work, beside(gguf) as write_gguf:
        made = work / real.name
        return _healed(make(made), made, step, write_gguf=write_gguf)


def _nothing(folder: Path) -> None:
    """Write no GGUF file."""


def _healed(report: Report, made: Path | None, step: HealStep, *, write_gguf: Callable[[Path], None]) -> Report:
    """Train a result, and write it to the folder that its report names. made: where it lies now."""
    from tokswap.heal.inputs import open_inputs
    from tokswap.heal.plan import plan_of
    from tokswap.heal.run import HealJob

    options = step.options
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
