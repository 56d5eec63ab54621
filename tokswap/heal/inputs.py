"""The first stage of a healing: both models are opened and checked, the text is read. No weight is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np

from tokswap.checkpoint.loaded import ModelLike, check_whole
from tokswap.checkpoint.reader import Checkpoint
from tokswap.checkpoint.skeleton import skeleton
from tokswap.checkpoint.source import SourceModel, open_source
from tokswap.errors import InputError, TokswapError, UsageError
from tokswap.heal.adapter import Reach, check_parts, reach_of
from tokswap.heal.chats import chat_parts
from tokswap.heal.identity import identity
from tokswap.heal.options import HealOptions, SelfTextOptions
from tokswap.heal.text import HealText, Side, check_amount, paired_text, text_parts
from tokswap.options.launcher import check_launcher
from tokswap.report.provenance import proposes_copied, read_provenance
from tokswap.report.record import Report
from tokswap.tokenizer.languages import language

_HALF = ("BF16", "F16")


@dataclass(frozen=True)
class HealInputs:
    """What a healing reads.

    Attributes:
        student: The model that is healed.
        teacher: The model that it learns from.
        sides: How both read text: teacher, student.
        text: The text; None where the teacher has to write all of it.
        options: What the user asked for.
        new: The rows that learn where only new ones do, int64 [n]; None where all do.
        fixed: The rows of lm_head that stay neutral, as the draft must not propose their tokens, int64 [n].
        reach: What a LoRA adapter can change of the student; None where only the run can tell.
    """

    student: SourceModel
    teacher: SourceModel
    sides: tuple[Side, Side]
    text: HealText | None
    options: HealOptions
    new: np.ndarray | None = None
    fixed: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    reach: Reach | None = None

    @property
    def dtype(self) -> str:
        """Type that the bodies compute in."""
        if self.options.dtype != "auto":
            return self.options.dtype
        return "bfloat16" if self.student.checkpoint.matrices[0].dtype in _HALF else "float32"

    @cached_property
    def teacher_identity(self) -> str:
        """What tells the teacher from others; all weights of one in memory are read for it."""
        return identity(self.teacher)


def open_inputs(
    model: ModelLike, texts: Sequence[str | Path], options: HealOptions, made: Report | None = None
) -> HealInputs:
    """Open what a healing reads.

    Args:
        model: The model to heal.
        texts: Files, folders or patterns.
        options: What the user asked for.
        made: How the model was made; None to read it from tokswap.json.

    Raises:
        UsageError: missing-text, unknown-language, missing-teacher, no-new-rows, cannot-shard, wrapped-model,
            bad-setting.
        InputError: missing-extra, not-causal, not-text-only, quantised-body, no-lora-targets, no-plain-embeddings, and
            what reading models and text raises.
    """
    check_surroundings(options.track)
    check_languages(options)
    if not texts and not options.chats and not options.self_text:
        hint = "give --text FILE (100 kB is a good start), or --self-text 100kB to let the teacher write it"
        raise UsageError("missing-text", "there is no text to heal with", hint)
    student = _opened(model, options)
    if student.loaded is not None:
        check_whole(student.loaded.model)
    reach = check_body(
        student,
        options.train,
        trust_remote_code=options.trust_remote_code,
        recompute=options.gradient_checkpointing,
    )
    teacher = _opened(_teacher_of(model, student, options), options)
    sides = (_side(teacher), _side(student))
    text = None
    if texts or options.chats:
        parts = chain(text_parts(texts, options.field), chat_parts(options.chats, student.tokenizer))
        text = paired_text(parts, sides[0], sides[1], share=options.held_out)
    else:
        check_amount(options.self_text or 0)
    new, copied_head = _made_rows(student, made)
    rows = _checked(new, student) if options.train == "new" else None
    fixed = new if copied_head else new[:0]
    return HealInputs(student, teacher, sides, text=text, options=options, new=rows, fixed=fixed, reach=reach)


def _made_rows(student: SourceModel, made: Report | None) -> tuple[np.ndarray, bool]:
    """Return the rows that were initialised, and whether the model is a draft that proposes none of them."""
    if made is not None:
        return made.alignment.missing, proposes_copied(made.plan.request.options)
    if student.loaded is not None:
        return np.zeros(0, np.int64), False
    found = read_provenance(student.checkpoint.folder)
    return np.flatnonzero(found.has_reason("missing")), proposes_copied(found.plan.get("options", {}))


def _checked(rows: np.ndarray, student: SourceModel) -> np.ndarray:
    """Return the rows that were initialised. Raises UsageError no-new-rows."""
    if not len(rows):
        message = "--train new trains the rows that were initialised, and no tokswap.json names any"
        hint = "give a model that tokswap has made, or choose what learns with --train"
        raise UsageError("no-new-rows", message, hint, model=student.name)
    return np.asarray(rows, np.int64)


def check_surroundings(track: str | None = None) -> None:
    """Check the launcher, the packages and the tracker.

    Raises:
        UsageError: cannot-shard, bad-setting.
        InputError: missing-extra.
    """
    from importlib.util import find_spec

    check_launcher()
    missing = [name for name in ("peft", "accelerate") if find_spec(name) is None]
    if missing:
        raise InputError("missing-extra", f"healing needs {' and '.join(missing)}", "pip install 'tokswap[heal]'")
    if track is not None:
        _check_tracker(track)


def _check_tracker(name: str) -> None:
    """Check that transformers knows a tracker and finds it installed. Raises UsageError bad-setting."""
    from transformers.integrations.integration_utils import get_reporting_integration_callbacks

    try:
        for tracker in get_reporting_integration_callbacks(name if name in ("all", "none") else [name]):
            tracker()
    except Exception as error:  # each tracker says in its own way what it lacks
        raise UsageError("bad-setting", f"--track {name} cannot log: {error}", "leave it out, or install it") from error


def check_languages(options: SelfTextOptions) -> None:
    """Check that the teacher can write in the languages that are asked for.

    Raises:
        UsageError: unknown-language.
        InputError: missing-extra.
    """
    for code in options.self_text_languages:
        language(code, most=1)


def _opened(model: ModelLike, options: HealOptions) -> SourceModel:
    source = open_source(model, trust_remote_code=options.trust_remote_code)
    check_model(source.checkpoint)
    return source


def check_model(checkpoint: Checkpoint) -> None:
    """Check that a model can be trained. Raises InputError not-causal, not-text-only, quantised-body."""
    checkpoint.facts.require_causal(checkpoint.folder, "healing trains a model to predict the next token")
    checkpoint.facts.require_text_only(checkpoint.folder)
    if checkpoint.config.get("quantization_config"):
        raise _quantised(checkpoint)


def check_body(source: SourceModel, train: str, *, trust_remote_code: bool, recompute: bool = False) -> Reach | None:
    """Check that a model has what is to be trained, without reading a weight.

    Args:
        source: The model.
        train: What learns, as `--train` says.
        trust_remote_code: Whether code that comes with the model may run.
        recompute: Whether its activations are to be computed twice.

    Returns:
        What a LoRA adapter can change of it; None where only the run can tell.

    Raises:
        UsageError: bad-setting.
        InputError: quantised-body, no-lora-targets, no-plain-embeddings.
    """
    if train in ("adapter", "full") and any(one.dtype.startswith("F8") for one in source.checkpoint.tensors.values()):
        raise _quantised(source.checkpoint)
    if source.loaded is not None:
        model = source.loaded.model
    else:
        model = skeleton(source.checkpoint.folder, trust_remote_code=trust_remote_code)
    if model is None:
        return None
    if recompute and not model.supports_gradient_checkpointing:
        message = f"--gradient-checkpointing: transformers cannot compute activations of {type(model).__name__} twice"
        raise UsageError("bad-setting", message, "leave it out; smaller --batch-tokens take less memory too")
    reach = reach_of(model)
    check_parts(model, reach, train)
    return reach


def _quantised(checkpoint: Checkpoint) -> InputError:
    return InputError(
        "quantised-body",
        "the weights of this model are quantised, and healing changes weights",
        "heal the checkpoint before quantisation, and quantise the result; a .gguf file is dequantised by itself",
        model=checkpoint.folder,
    )


def _teacher_of(model: ModelLike, student: SourceModel, options: HealOptions) -> ModelLike:
    """Return the teacher that the user names, or the source model that tokswap.json names."""
    if options.teacher is not None:
        return options.teacher
    hint = "name the model that it came from with --teacher MODEL"
    named = None
    if student.path is not None:
        named = read_provenance(student.path).plan.get("model")
    if not named:
        message = "there is no tokswap.json that names the source model, to learn from"
        raise UsageError("missing-teacher", message, hint, model=student.name)
    try:
        open_source(str(named), trust_remote_code=options.trust_remote_code)
    except TokswapError as error:
        message = f"the source model that tokswap.json names cannot be opened: {error.message}"
        raise UsageError("missing-teacher", message, hint, source=named) from error
    return str(named)


def _side(source: SourceModel) -> Side:
    return Side(source.tokenizer, source.tokenizer.leading, source.checkpoint.facts.positions)
