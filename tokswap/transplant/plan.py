"""Plans a transplant: align -> assign rows -> new configs (`prepare`), then lay out -> estimate (`finish`).

Drafts and ensembles change the configs between `prepare` and `finish`, and share all else.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from tokswap.checkpoint.configs import Configs, edit_config, edit_generation_config, set_tie
from tokswap.checkpoint.edit import Edit
from tokswap.checkpoint.gguf_file import GgufTarget, plan_gguf
from tokswap.checkpoint.id_map import AlignedIds
from tokswap.checkpoint.layout import lay_out
from tokswap.checkpoint.loaded import ModelLike
from tokswap.checkpoint.modules import check_modules, edit_modules
from tokswap.checkpoint.nested_configs import token_ids
from tokswap.checkpoint.processors import edit_processors, named_tokens
from tokswap.checkpoint.result_files import MAP_NAME, ResultFiles, result_files
from tokswap.checkpoint.source import named, result_folder
from tokswap.errors import InputError, UsageError
from tokswap.evaluation.models import check_device
from tokswap.heal.step import HealStep, check_text, check_training, heal_step
from tokswap.init.base import Context
from tokswap.init.blend import described
from tokswap.init.estimate import estimate
from tokswap.init.resources.disk import DiskResources
from tokswap.init.solver import RowTask, copies_only
from tokswap.options.keywords import two_and_keywords
from tokswap.report.plan import Names, Plan, Request, VocabularyChange, matrix_plans, sizes_of
from tokswap.report.record import Report
from tokswap.storage.atomic import check_output
from tokswap.tokenizer.alignment import Alignment, Reason, align, identity
from tokswap.tokenizer.loaded import TokenizerLike
from tokswap.transplant.advice import frame_notes, media_notes, plan_notes, template_notes
from tokswap.transplant.inputs import Inputs, open_inputs
from tokswap.transplant.options import TransplantOptions
from tokswap.transplant.prepared import Prepared
from tokswap.transplant.run import TransplantJob
from tokswap.transplant.vocabulary import HEAD_DROPPED, bos_to_add, matrix_edits, matrix_rows, read_token_map

logger = logging.getLogger(__name__)

_LOOKED_UP = "each token is looked up in a matrix of integers, where new tokens get the row of their first piece"


@two_and_keywords(TransplantOptions)
def plan_transplant(model: ModelLike, tokenizer: TokenizerLike, options: TransplantOptions) -> TransplantJob:
    """Check a transplant and say what it will do, without reading a weight.

    Args:
        model: The source model: a folder, hub id, alias or .gguf file, or a loaded model with its tokenizer.
        tokenizer: The target tokenizer: one of those, a tokenizer.json, or a loaded tokenizer.
        options: See below.

    Returns:
        A job: `job.plan` says what will happen, `job.run()` does it.

    Raises:
        UsageError, InputError, OutputError: for everything that can be known beforehand.
    """
    return plan_with(model, tokenizer, options)


@two_and_keywords(TransplantOptions)
def transplant_tokenizer(model: ModelLike, tokenizer: TokenizerLike, options: TransplantOptions) -> Report:
    """Put another tokenizer on a model.

    Rows of tokens that both vocabularies share are copied bit for bit; a method computes the others. A model given by
    name is never changed: the result is a new folder. For a loaded model, `(model, tokenizer)`, the result is a changed
    copy in memory, and a folder too where `out` names one.

    Args:
        model: The source model: a folder, hub id, alias or .gguf file, or a loaded model with its tokenizer.
        tokenizer: The target tokenizer: one of those, a tokenizer.json, or a loaded tokenizer.
        options: See below.

    Returns:
        What was done. `model, tokenizer = result.load()` loads the result, `result.path` is its folder.

    Raises:
        UsageError, InputError: where the request or an input is wrong.
        OutputError: where the result cannot be written. Nothing is written then.
    """
    return plan_with(model, tokenizer, options).run()


def plan_with(model: ModelLike, tokenizer: TokenizerLike, options: TransplantOptions) -> TransplantJob:
    """Do what `plan_transplant` does, with an options object."""
    prepared = prepare(open_inputs(model, tokenizer, options, prefer_file=True), options)
    return finish(prepared, default_out=f"{named(model)}-{named(tokenizer)}")


def prepare(inputs: Inputs, options: TransplantOptions) -> Prepared:
    """Align both vocabularies, assign rows and make the configs."""
    check_device(options.device)
    source, target = inputs.source, inputs.target
    alignment = _aligned(inputs, options)
    bos, bos_notes = bos_to_add(options.bos, source.tokenizer, target.tokenizer, alignment)
    matrices = matrix_edits(source.checkpoint, alignment, options.tie)
    notes = [*inputs.notes, *target.tokenizer.notes, *plan_notes(source.tokenizer, target.tokenizer), *bos_notes]
    notes += frame_notes(source.tokenizer, target.tokenizer, alignment, bos)
    if options.tie is True and not source.checkpoint.tied:
        notes.append(HEAD_DROPPED)
    if any(edit.matrix.role == "lookup" for edit in matrices):
        matrices = copies_only(matrices, alignment, source.tokenizer, target.tokenizer)
        notes.append(_LOOKED_UP)
    if options.output_init is not None and not any(edit.matrix.role == "output" for edit in matrices):
        raise UsageError(
            "no-output-head",
            "--init-output is for an lm_head of its own, and in this model it is tied to the input embeddings",
            "add --untie to give it one, or leave out --init-output",
        )
    result = _result(inputs, options, alignment, bos)
    notes += result.notes
    notes += template_notes(source.tokenizer, target.tokenizer)
    logger.debug("prepared %s: %s", source.name, alignment.counts())
    return Prepared(
        inputs=inputs,
        options=options,
        alignment=alignment,
        matrices=matrices,
        result=result,
        bos=bos,
        notes=tuple(notes),
    )


def _aligned(inputs: Inputs, options: TransplantOptions) -> Alignment:
    """For each new id, the old one, or -1, and why."""
    source, target = inputs.source.tokenizer, inputs.target.tokenizer
    rows = matrix_rows(options.vocab_size, options.pad_to_multiple, len(target.vocabulary), inputs.target.config)
    if options.keep_rows:
        if list(target.vocabulary.text) != list(source.vocabulary.text):
            message = "`keep_rows` needs two vocabularies with the same token at every id"
            raise UsageError("bad-setting", message, "leave it out")
        alignment = identity(target.vocabulary, source.vocabulary, rows)
    else:
        alignment = align(
            target.vocabulary,
            source.vocabulary,
            rows=rows,
            mapped=read_token_map(options.map_tokens, target.vocabulary, source.vocabulary),
            bos_first=source.adds_bos,
        )
    if not (alignment.reason == Reason.BYTES).any():
        raise InputError(
            "no-shared-token",
            "the two vocabularies have no token in common",
            "nothing would be left of what the model knows about its input; is this the right tokenizer?",
            model=inputs.source.checkpoint.folder,
            tokenizer=inputs.target.path or inputs.target.name,
        )
    return alignment if inputs.methods.main.copies_shared() else alignment.without_shared_text()


def _result(inputs: Inputs, options: TransplantOptions, alignment: Alignment, bos: int | None) -> ResultFiles:
    """The configs and files of the result."""
    source, target = inputs.source, inputs.target
    rows = len(alignment)
    ids = AlignedIds(alignment, source.tokenizer.vocabulary, target.tokenizer.vocabulary, target_config=target.config)
    model = edit_config(source.checkpoint.config, ids, rows)
    config = set_tie(model.config, options.tie)
    owner_eos = [token for token in token_ids(target.generation, "eos_token_id") if token < rows]
    generation = edit_generation_config(source.checkpoint.generation_config, ids, owner_eos, config)
    check_modules(source.checkpoint.folder, source.checkpoint.modules, source.checkpoint.matrices[0].rows)
    modules, module_notes = edit_modules(source.checkpoint.modules, ids, (source.checkpoint.matrices[0].rows, rows))
    processors, processor_notes = edit_processors(source.checkpoint.processors, ids)
    result = result_files(
        source.checkpoint,
        target.tokenizer,
        Configs(model=config, generation=generation.config, tokenizer=target.tokenizer.config),
        bos=bos,
        modules={**modules, **processors},
        input_names=source.tokenizer.config.get("model_input_names"),
        trust_remote_code=options.trust_remote_code,
    )
    files = dict(result.files)
    if target.map_file is not None:
        files[MAP_NAME] = target.map_file
    settings = result.configs.tokenizer
    if source.checkpoint.facts.multimodal:
        settings = {**settings, **named_tokens(source.tokenizer.config, settings, ids, source.checkpoint.config)}
        processor_notes += media_notes(source.tokenizer, target.tokenizer) if source.checkpoint.processors else ()
    notes = (*model.notes, *generation.notes, *module_notes, *processor_notes, *result.notes)
    return ResultFiles(dataclasses.replace(result.configs, tokenizer=settings), files, notes=notes)


def finish(
    prepared: Prepared,
    *,
    default_out: str,
    operation: str = "transplant",
    owner: str | None = None,
    step: HealStep | None = None,
) -> TransplantJob:
    """Lay out the weight files, check the output and estimate.

    Args:
        prepared: What `prepare` returned, its configs changed where the operation asks for it.
        default_out: Name of the result where the user gave none.
        operation: What the plan says it is.
        owner: How the user named the target, where `inputs` does not say it.
        step: The training of the result, where it is not the one that the options name.
    """
    inputs, options = prepared.inputs, prepared.options
    source = inputs.source
    edit = Edit(source.checkpoint, prepared.matrices, prepared.configs, files=prepared.result.files)
    layout = lay_out(edit)
    out = result_folder(options.out, default_out, source)
    if out is not None:
        _check_out(out, inputs, needed=layout.written(options.link), force=options.force)
    owner = owner if owner is not None else inputs.target.name
    result = GgufTarget(inputs.target.tokenizer, out, prepared.bos, owner=owner)
    gguf = plan_gguf(options, edit, layout, result, force=options.force)
    step = heal_step(options, source) if step is None else step
    step_notes = (*check_training(step, source), *check_text(step, source, inputs.target.tokenizer))
    more = [*(gguf.notes if gguf else ()), *step_notes]
    task = RowTask(
        source=source,
        target=inputs.target.tokenizer,
        donor=inputs.donor,
        alignment=prepared.alignment,
        methods=inputs.methods,
        context=_context(inputs, options),
        copied_head=prepared.copied_head,
    )
    donor = str(inputs.donor.checkpoint.folder) if inputs.donor else None
    named_out = str(out) if out is not None else ""
    plan = Plan(
        operation=operation,
        names=Names(source.name, owner, donor, out=named_out),
        request=_request(inputs, options),
        change=VocabularyChange(
            family_before=source.tokenizer.family,
            family_after=inputs.target.tokenizer.family,
            bos_added=prepared.bos is not None,
            tied=source.checkpoint.tied if options.tie is None else options.tie,
        ),
        coverage=prepared.alignment.counts(),
        matrices=matrix_plans(source.checkpoint, prepared.matrices),
        sizes=sizes_of(source.checkpoint, layout, options.link),
        estimate=estimate(task, prepared.matrices, written=layout.written(options.link)),
        notes=(*prepared.notes, *more),
    )
    return TransplantJob(plan=plan, prepared=prepared, edit=edit, layout=layout, task=task, gguf=gguf, step=step)


def _check_out(out: Path, inputs: Inputs, *, needed: int, force: bool) -> None:
    """Raise OutputError where the result cannot go to `out`."""
    target, donor = inputs.target.path, inputs.donor
    sources = [
        inputs.source.path,
        target if target is not None and target.is_dir() else None,
        donor.checkpoint.folder if donor is not None and donor.checkpoint.on_disk else None,
    ]
    check_output(out, sources=sources, needed=needed, force=force)


def _context(inputs: Inputs, options: TransplantOptions) -> Context:
    return Context(
        seed=options.seed,
        device=options.device,
        memory=options.memory,
        progress=options.progress,
        backend=inputs.backend,
        resources=DiskResources(),
    )


def _request(inputs: Inputs, options: TransplantOptions) -> Request:
    methods = inputs.methods
    return Request(
        method=options.init,
        settings=described(methods.main),
        output_method=options.output_init,
        output_settings=described(methods.output) if methods.output is not None else {},
        options=options.recorded(),
    )
