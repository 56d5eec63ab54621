"""Plans a healing, and heals: the public functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from tokswap.checkpoint.loaded import ModelLike
from tokswap.checkpoint.source import named, result_folder
from tokswap.errors import UsageError, count_of
from tokswap.evaluation.models import check_device
from tokswap.heal.amount import flops_per_token
from tokswap.heal.batches import largest_batch
from tokswap.heal.inputs import HealInputs, open_inputs
from tokswap.heal.logits import BLOCK_ELEMENTS
from tokswap.heal.options import HealOptions
from tokswap.heal.result import HealPlan, HealReport
from tokswap.heal.run import HealJob
from tokswap.heal.shards import can_divide
from tokswap.heal.team import Team
from tokswap.init.estimate import flops_per_second
from tokswap.options.keywords import two_and_keywords
from tokswap.report.plan import Estimate
from tokswap.report.provenance import read_provenance
from tokswap.storage.atomic import check_output

_LIBRARIES_BYTES = 1_000_000_000
_ACTIVATIONS = 60
"""Numbers that a layer keeps for the backward pass, per token and hidden element."""
_LARGEST = 1.7
"""The largest step, padding included, relative to what a step should have, where the text is not written yet."""
_JUDGED = 7
"""Passes over the held-out text."""


@two_and_keywords(HealOptions)
def plan_heal(model: ModelLike, texts: Sequence[str | Path], options: HealOptions) -> HealJob:
    """Check a healing and say what it will do, without reading a weight.

    Args:
        model: The model to heal: a folder, hub id, alias or .gguf file, or a loaded model with its tokenizer.
        texts: Text to train on: files (.txt, .jsonl, .parquet, also .gz), folders or patterns.
        options: See below.

    Returns:
        A job: `job.plan` says what will happen, `job.run()` does it.

    Raises:
        UsageError, InputError, OutputError: for everything that can be known beforehand.
    """
    return plan_with(model, texts, options)


@two_and_keywords(HealOptions)
def heal_model(model: ModelLike, texts: Sequence[str | Path], options: HealOptions) -> HealReport:
    """Train a model until it predicts text as well as the model that it came from, or nearly so.

    A change of the vocabulary leaves a model with tokens, and sequences of tokens, that it has never seen. Healing
    trains a LoRA adapter and the embeddings to predict what the source model (the teacher) does with its own tokenizer,
    on a text that the user gives. A part of the text is held out; a result that does not predict it better than before
    is not written.

    Args:
        model: The model to heal: a folder, hub id, alias or .gguf file, or a loaded model with its tokenizer.
        texts: Text to train on: files (.txt, .jsonl, .parquet, also .gz), folders or patterns.
        options: See below.

    Returns:
        What was done. `model, tokenizer = result.load()` loads the result, `result.path` is its folder.

    Raises:
        UsageError, InputError: where the request or an input is wrong; not-better, where healing did not help.
        OutputError: where the result cannot be written. Nothing is written then.
    """
    return plan_with(model, texts, options).run()


def plan_with(model: ModelLike, texts: Sequence[str | Path], options: HealOptions) -> HealJob:
    """Do what `plan_heal` does, with an options object."""
    check_device(options.device)
    if options.kl == 0 and options.cross_entropy == 0:
        raise UsageError("bad-setting", "--kl and --cross-entropy cannot both be 0", "leave one of them out")
    if options.kl == 0 and options.top != HealOptions.top:  # of the teacher's predictions
        raise UsageError("idle-option", "--top has no effect with --kl 0", "omit --top, or --kl 0")
    if options.save == "adapter" and options.train != "adapter":
        raise UsageError("bad-setting", "--save adapter needs --train adapter", "leave out one of the two")
    inputs = open_inputs(model, texts, options)
    if options.shard:
        _check_sharded(inputs)
    source = inputs.student
    out = result_folder(options.out, f"{named(model)}-healed", source)
    if out is not None:
        needed = source.checkpoint.nbytes if options.save == "merged" else 8 * _learning(inputs)
        check_output(out, sources=[source.path, inputs.teacher.path], needed=needed, force=options.force)
    return HealJob(plan_of(inputs, out), inputs)


def _check_sharded(inputs: HealInputs) -> None:
    """Check that the bodies can be divided among processes. Raises UsageError bad-setting."""
    options = inputs.options
    if Team.of(options.device).size == 1:
        message = "--shard divides the body among processes, and there is one"
        hint = "start several: `accelerate launch --multi_gpu --num_processes 2 -m tokswap heal ...`"
    elif options.train == "full":
        message = "--shard divides what does not learn, and with --train full all does"
        hint = "use --train adapter"
    elif inputs.student.loaded is not None or inputs.teacher.loaded is not None:
        message = "--shard divides models that it reads from a folder, and this one is in memory"
        hint = "give the folder"
    elif not can_divide():
        message = "--shard needs a torch that can leave single weights whole"
        hint = "pip install -U torch"
    else:
        return
    raise UsageError("bad-setting", message, hint)


def plan_of(inputs: HealInputs, out: Path | None) -> HealPlan:
    """Return the plan of a healing to a folder, or in memory."""
    text, options = inputs.text, inputs.options
    tokens = (text.tokens if text else 0) + (options.self_text or 0) // 4
    trained = tokens * options.epochs
    notes = [*inputs.student.notes]
    if options.train == "adapter" and inputs.reach is not None:
        notes += inputs.reach.notes
    notes += _draft_notes(inputs)
    if options.self_text:
        kinds = ["as your text goes on, mostly where the tokenizers differ"] if text is not None else []
        kinds += [f"in {code}" for code in options.self_text_languages]
        how = f": {', '.join(kinds)}" if kinds else ""
        notes.append(f"the teacher writes {count_of(options.self_text, 'byte')} of text first{how}")
    if options.minutes is not None:
        notes.append(
            f"reads what fits into {options.minutes:g} min of the text, most of it where the tokenizers differ"
        )
    # A base model with a chat model's tokenizer has its template, and no chat behaviour to lose.
    if all(side.tokenizer.chat_templates for side in inputs.sides) and not options.chats:
        notes.append("a chat model, and the text has no conversations: it may answer worse; add some with --chat")
    if text is not None and text.skipped:
        notes.append(f"left out: {count_of(text.skipped, 'byte')} of text that one of the tokenizers changes")
    return HealPlan(
        model=inputs.student.name,
        teacher=inputs.teacher.name,
        out=str(out) if out is not None else "",
        text={
            "bytes": text.bytes if text else 0,
            "tokens": text.tokens if text else 0,
            "passages": len(text.training) if text else 0,
            "held_out": len(text.held_out) if text else 0,
        },
        train={
            "what": options.train,
            "save": options.save,
            "parameters": _learning(inputs),
            "rate": options.rate_at(inputs.student.checkpoint.matrices[0].width),
            "steps": max(1, round(trained / options.batch_tokens)),
        },
        estimate=Estimate(_memory(inputs), round(_seconds(inputs, trained), 1)),
        options=options.recorded(),
        notes=tuple(notes),
    )


def _draft_notes(inputs: HealInputs) -> tuple[str, ...]:
    """Say that a draft has another teacher than its target."""
    source = inputs.student
    if inputs.options.teacher is not None or source.loaded is not None:
        return ()
    made = read_provenance(source.checkpoint.folder).plan
    if made.get("operation") != "draft":
        return ()
    return (f"this is a draft, and its teacher is the small model: --teacher {made.get('tokenizer')} names its target",)


def _learning(inputs: HealInputs) -> int:
    """Parameters that learn: the matrices, and the adapter or the body. All are counted from shapes."""
    checkpoint, options = inputs.student.checkpoint, inputs.options
    trained = [one for one in checkpoint.matrices if one.role in ("input", "output")]
    if inputs.new is not None:
        return sum(len(inputs.new) * one.width for one in trained)
    matrices = sum(math.prod(one.shape) for one in trained)
    if options.train == "embeddings":
        return matrices
    if inputs.reach is None or options.train == "full":
        names = {name for one in checkpoint.matrices if one.role != "per-layer" for name in one.names}
        body = [info.shape for name, info in checkpoint.tensors.items() if name not in names]
        if options.train == "full":
            return matrices + sum(map(math.prod, body))
        return matrices + sum(options.rank * sum(shape) for shape in body if len(shape) == 2)
    return matrices + options.rank * inputs.reach.sides


def _memory(inputs: HealInputs) -> int:
    """Return the bytes at the peak, with one body at a time.

    Each weight that learns has a float32 copy, a gradient and two moments, and all but the gradient once more when a
    checkpoint is saved.
    """
    checkpoint, options = inputs.student.checkpoint, inputs.options
    width = 2 if inputs.dtype == "bfloat16" and options.train != "full" else 4
    matrices = sum(math.prod(one.shape) for one in checkpoint.matrices)
    body = sum(math.prod(one.shape) for one in checkpoint.tensors.values()) - matrices
    layers = int(checkpoint.config.get("num_hidden_layers") or checkpoint.config.get("n_layer") or 24)
    kept = 2 if options.gradient_checkpointing else _ACTIVATIONS
    sizes = [len(one.student.ids) for one in inputs.text.training] if inputs.text else []
    tokens = largest_batch(sizes, options) if sizes else round(_LARGEST * options.batch_tokens)
    activations = tokens * layers * checkpoint.matrices[0].width * kept * width
    head = checkpoint.matrices[0].rows * checkpoint.matrices[0].width * (width + 4)
    share = Team.of(options.device).size if options.shard else 1
    training = body * width // share + 28 * _learning(inputs) + head + 12 * BLOCK_ELEMENTS + activations
    teacher = inputs.teacher.checkpoint.nbytes * width // _bytes_per_number(inputs)
    whole = max(teacher, width * (body + matrices)) if share > 1 else 0  # each process in its turn
    return _LIBRARIES_BYTES + max(training, teacher // share + 12 * BLOCK_ELEMENTS, whole)


def _bytes_per_number(inputs: HealInputs) -> int:
    return 2 if inputs.teacher.checkpoint.matrices[0].dtype in ("BF16", "F16") else 4


def _seconds(inputs: HealInputs, trained: int) -> float:
    text, options = inputs.text, inputs.options
    read = sum(len(one.teacher.ids) for one in text.training) if text else 0
    judged = _JUDGED * sum(len(one.student.ids) for one in text.held_out) if text else 0
    flops = (
        trained * flops_per_token(inputs)
        + (read if options.kl else 0) * flops_per_token(inputs, teacher=True)
        + judged * flops_per_token(inputs, judging=True)
        + (options.self_text or 0) / 3 * flops_per_token(inputs, teacher=True) * 4  # decoding reuses less
    )
    seconds = flops / flops_per_second() + 20
    return seconds if options.minutes is None else min(seconds, options.minutes * 60)
