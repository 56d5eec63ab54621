"""Plans an extension: read -> choose tokens -> assign rows -> new configs, then as a transplant goes on."""

from __future__ import annotations

import dataclasses
from math import prod

import numpy as np

from tokswap.checkpoint.id_map import KeptIds
from tokswap.checkpoint.loaded import ModelLike
from tokswap.checkpoint.reader import Checkpoint
from tokswap.checkpoint.result_files import MAP_NAME, ResultFiles, renumbered_files
from tokswap.checkpoint.source import SourceModel, named, open_source, result_folder
from tokswap.distributed import check_backend, find_backend
from tokswap.errors import InputError
from tokswap.evaluation.models import check_device
from tokswap.extend.candidates import read_words
from tokswap.extend.checks import folder_check
from tokswap.extend.choose import Chosen, choose, shown
from tokswap.extend.options import ExtendOptions
from tokswap.extend.replace import Base, base_of, with_room
from tokswap.extend.rows import NewRows, read_named
from tokswap.extend.splice import Extended, extended
from tokswap.heal.step import check_training, heal_step
from tokswap.init.blend import read_method
from tokswap.init.solver import Methods, copies_only
from tokswap.options.keywords import one_and_keywords
from tokswap.report.plan import ExtendFacts
from tokswap.report.record import Report
from tokswap.storage.atomic import check_output
from tokswap.tokenizer.alignment import Alignment, Reason
from tokswap.transplant.inputs import Inputs, Target
from tokswap.transplant.plan import finish
from tokswap.transplant.prepared import Prepared
from tokswap.transplant.run import TransplantJob
from tokswap.transplant.vocabulary import matrix_edits
from tokswap.trim.ids import map_file


@one_and_keywords(ExtendOptions)
def plan_extend(model: ModelLike, options: ExtendOptions) -> TransplantJob:
    """Choose new tokens for a model and say what they change, without reading a weight. Corpora are tokenized.

    Args:
        model: The model to extend: a folder, hub id, alias or .gguf file, or a loaded model with its tokenizer.
        options: See below.

    Returns:
        A job: `job.plan` says what will happen, `job.run()` does it.

    Raises:
        UsageError, InputError, OutputError: for everything that can be known beforehand.
    """
    return plan_with(model, options)


@one_and_keywords(ExtendOptions)
def extend_model(model: ModelLike, options: ExtendOptions) -> Report:
    """Add tokens to the vocabulary of a model.

    Old tokens keep their ids and rows, and every text without a new token keeps its tokenization. New tokens come out
    of the tokenizer's model: they are not added tokens. A loaded model, `(model, tokenizer)`, is changed in memory: the
    result is a copy.

    Args:
        model: The model to extend: a folder, hub id, alias or .gguf file, or a loaded model with its tokenizer.
        options: See below.

    Returns:
        What was done. `model, tokenizer = result.load()` loads the result, `result.path` is its folder.

    Raises:
        UsageError, InputError: where the request or an input is wrong.
        OutputError: check-failed, and where the result cannot be written. Nothing is written then.
    """
    return plan_with(model, options).run()


def plan_with(model: ModelLike, options: ExtendOptions) -> TransplantJob:
    """Do what `plan_extend` does, with an options object."""
    options.check_choice()
    check_device(options.device)
    source, methods = _opened(model, options)
    out = result_folder(options.out, f"{named(model)}-extended", source)
    if out is not None:  # before the corpora are read
        check_output(out, sources=[source.path], needed=0, force=options.force)
    check_training(heal_step(options, source), source)
    base, chosen, sample = _choose(source, options)
    prepared, rows = _prepare(source, methods, (base, chosen.extended), options)
    job = finish(prepared, default_out=f"{named(model)}-extended", operation="extend", owner=source.name)
    request = dataclasses.replace(job.plan.request, options=options.recorded())
    plan = dataclasses.replace(job.plan, request=request, counted=_facts(source.checkpoint, base, chosen))
    check = None
    if source.path is not None and not options.replace:
        check = folder_check(source.path, chosen.extended, sample, options.trust_remote_code)
    return dataclasses.replace(job, plan=plan, task=dataclasses.replace(job.task, methods=rows), check=check)


def _opened(model: ModelLike, options: ExtendOptions) -> tuple[SourceModel, Methods]:
    """Open the model, and check that the methods can do without a donor."""
    check_backend(find_backend(options.backend), options.device)
    methods = Methods(
        read_method(options.init, options.settings),
        read_method(options.output_init) if options.output_init is not None else None,
    )
    if any(method.donor_use() == "required" for method in methods.all):
        raise InputError(
            "missing-donor",
            "the method needs the embeddings of a donor, and new tokens have none",
            "use a method that needs none: --init subword, auto, zett",
        )
    source = open_source(model, trust_remote_code=options.trust_remote_code)
    methods.check(source)
    return source, methods


def _choose(source: SourceModel, options: ExtendOptions) -> tuple[Base, Chosen, tuple[str, ...]]:
    """Choose the new tokens; returns the tokenizer that they are added to, too, and some texts of the corpus."""
    words = read_words(options.corpora, source.tokenizer, options.field) if options.corpora else None
    chosen = choose(source.tokenizer, words, options, _first(source))
    base = base_of(source)
    if options.replace:
        base = with_room(source, chosen.extended, options)
        asked = zip(chosen.extended.token_bytes, chosen.extended.asked, strict=True)
        again = extended(base.tokenizer, [token for token, wanted in asked if wanted])
        chosen = dataclasses.replace(chosen, extended=again)
    return base, chosen, words.sample if words is not None else ()


def _first(source: SourceModel) -> int:
    """The first new id: after the tokenizer's ids, and after rows past them that the config names."""
    rows = source.checkpoint.matrices[0].rows
    named_ids = source.checkpoint.named_ids
    return max(len(source.tokenizer.vocabulary), *(token + 1 for token in named_ids if token < rows), 0)


def _prepare(
    source: SourceModel, methods: Methods, parts: tuple[Base, Extended], options: ExtendOptions
) -> tuple[Prepared, Methods]:
    """Assign rows and make the configs; returns the methods of the new rows, too."""
    base, found = parts
    tokenizer, checkpoint = found.tokenizer, source.checkpoint
    mapped = read_named(options.map_tokens, tokenizer.vocabulary, source.tokenizer.vocabulary, found.first)
    alignment = _aligned(base, found, checkpoint, mapped, options)
    matrices = matrix_edits(checkpoint, alignment, None)
    if any(edit.matrix.role == "lookup" for edit in matrices):
        matrices = copies_only(matrices, alignment, source.tokenizer, tokenizer)
    inputs = Inputs(
        source=source,
        target=Target(
            name=source.name,
            path=source.path,
            tokenizer=tokenizer,
            config=checkpoint.config,
            generation=checkpoint.generation_config,
        ),
        donor=None,
        methods=methods,
        backend=find_backend(options.backend),
    )
    result = _result(source, base, found, rows=len(alignment), trust=options.trust_remote_code)
    prepared = Prepared(
        inputs=inputs,
        options=options.as_transplant(),
        alignment=alignment,
        matrices=matrices,
        result=result,
        bos=None,
        notes=(*source.notes, *source.tokenizer.notes, *base.notes, *result.notes),
    )
    several = {token: old for token, old in mapped.items() if len(old) > 1}
    scaled = options.input_norms == "median"
    output = NewRows(methods.output, several, scaled) if methods.output is not None else None
    return prepared, Methods(NewRows(methods.main, several, scaled), output)


def _aligned(
    base: Base, found: Extended, source: Checkpoint, mapped: dict[int, tuple[int, ...]], options: ExtendOptions
) -> Alignment:
    """Say where each row comes from: old ids, new tokens, and rows past them that the model has already."""
    rows, end = source.matrices[0].rows, found.first + len(found)
    total = max(rows, end)
    total += -total % (options.pad_to_multiple or 1)
    source_of = np.full(total, -1, np.int32)
    reason = np.full(total, Reason.PADDING, np.uint8)
    source_of[:rows], reason[:rows] = np.arange(rows), Reason.BYTES
    source_of[: len(base.kept)] = base.kept
    source_of[found.first : end], reason[found.first : end] = -1, Reason.MISSING
    for token, old in mapped.items():
        if len(old) == 1:
            source_of[token], reason[token] = old[0], Reason.MAP
    return Alignment(source_of, reason)


def _result(source: SourceModel, base: Base, found: Extended, *, rows: int, trust: bool) -> ResultFiles:
    """The configs and files of the result."""
    checkpoint, tokenizer = source.checkpoint, found.tokenizer
    old_rows = checkpoint.matrices[0].rows
    new_of = {old: new for new, old in enumerate(base.kept.tolist())}
    if len(new_of) == len(source.tokenizer.vocabulary):  # rows past the tokenizer stay where they are
        new_of |= {token: token for token in range(len(new_of), min(found.first, old_rows))}
    ids = KeptIds(source.tokenizer.vocabulary, tokenizer.vocabulary, new_of)
    result = renumbered_files(checkpoint, tokenizer, ids, rows, trust_remote_code=trust)
    ids_file = map_file(base.kept, old_rows, rows=found.first + len(found))
    return dataclasses.replace(result, files={**result.files, MAP_NAME: ids_file})


def _facts(source: Checkpoint, base: Base, chosen: Chosen) -> ExtendFacts:
    """What the plan says about the new tokens."""
    found = chosen.extended
    head = source.matrices[0].width
    body = sum(prod(info.shape) for info in source.tensors.values()) - (
        0 if source.tied else prod(source.matrices[0].shape)
    )
    cost, measured = 1000 * head / max(body, 1), chosen.text_bytes[1] > 0
    return ExtendFacts(
        added=tuple(shown(found)),
        intermediate=len(found) - sum(found.asked),
        skipped=dict(chosen.skipped),
        dropped=base.dropped,
        text_bytes=chosen.text_bytes,
        saving=chosen.saving,
        cost=round(cost, 6),
        pays=max((row.tokens for row in chosen.saving if row.per_thousand > cost), default=0) if measured else None,
    )
