"""Plans a trim: read -> choose tokens -> assign rows -> new configs -> lay out -> estimate. Corpora are counted."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tokswap.checkpoint.edit import Edit, MatrixEdit
from tokswap.checkpoint.gguf_file import GgufTarget, plan_gguf
from tokswap.checkpoint.id_map import KeptIds
from tokswap.checkpoint.layout import lay_out
from tokswap.checkpoint.loaded import ModelLike
from tokswap.checkpoint.modules import fixed_texts
from tokswap.checkpoint.reader import Checkpoint
from tokswap.checkpoint.result_files import MAP_NAME, ResultFiles, renumbered_files
from tokswap.checkpoint.source import SourceModel, named, open_source, result_folder
from tokswap.distributed import Backend, find_backend, idle_notes
from tokswap.evaluation.models import check_device
from tokswap.heal.step import check_text, check_training, heal_step
from tokswap.init.base import Context
from tokswap.init.estimate import estimate
from tokswap.init.registry import make_initializer
from tokswap.init.solver import Methods, RowTask
from tokswap.options.keywords import one_and_keywords
from tokswap.report.plan import Names, Plan, Request, TrimFacts, VocabularyChange, matrix_plans, sizes_of
from tokswap.report.record import Report
from tokswap.storage.atomic import check_output
from tokswap.tokenizer.alignment import Alignment
from tokswap.trim.corpora import find_corpus, read_sample
from tokswap.trim.ids import map_file, rows_of
from tokswap.trim.options import TrimOptions
from tokswap.trim.outputs import comparison_bytes, reload_bytes
from tokswap.trim.rebuild import Trimmed, rebuilt
from tokswap.trim.run import TrimJob
from tokswap.trim.selection import Selection
from tokswap.trim.target import as_in, counted

_MODEL_CHECK_SHARE = 0.25
"""A model is loaded to compare its outputs where it takes no more than this share of the machine's memory."""
_TOO_LARGE = "the model is too large to compare its outputs on this machine; --check full compares them anyway"


@dataclass(frozen=True)
class Needed:
    """What the configs need.

    Attributes:
        ids: Ids of tokens.
        extra: Rows past the tokenizer's ids.
    """

    ids: set[int]
    extra: tuple[int, ...]


@dataclass(frozen=True)
class Chosen:
    """The tokens of the result and where its rows come from.

    Attributes:
        selection: The closed set of ids.
        trimmed: The tokenizer with these tokens.
        alignment: Where every row of the result comes from.
        needed: What the configs need.
        notes: What the user should know.
    """

    selection: Selection
    trimmed: Trimmed
    alignment: Alignment
    needed: Needed
    notes: tuple[str, ...]

    @property
    def new_of(self) -> dict[int, int]:
        """Old id -> new id, for tokens and for rows past the tokenizer."""
        return {old: new for new, old in enumerate([*self.trimmed.kept.tolist(), *self.needed.extra])}


@one_and_keywords(TrimOptions)
def plan_trim(model: ModelLike, options: TrimOptions) -> TrimJob:
    """Decide which tokens to keep and say what a trim will do, without reading a weight. Corpora are counted.

    Args:
        model: The model to trim: a folder, hub id, alias or .gguf file, or a loaded model with its tokenizer.
        options: See below.

    Returns:
        A job: `job.plan` says what will happen, `job.run()` does it.

    Raises:
        UsageError, InputError, OutputError: for everything that can be known beforehand.
    """
    return plan_with(model, options)


@one_and_keywords(TrimOptions)
def trim_vocabulary(model: ModelLike, options: TrimOptions) -> Report:
    """Keep the tokens of a language or a domain, exactly, and drop the rest of the vocabulary.

    Text whose tokens are all kept is tokenized as before, and the model computes the same from it. A loaded model,
    `(model, tokenizer)`, is changed in memory: the result is a copy.

    Args:
        model: The model to trim: a folder, hub id, alias or .gguf file, or a loaded model with its tokenizer.
        options: See below.

    Returns:
        What was done. `model, tokenizer = result.load()` loads the result, `result.path` is its folder.

    Raises:
        UsageError, InputError: where the request or an input is wrong.
        OutputError: not-exact, and where the result cannot be written. Nothing is written then.
    """
    return plan_with(model, options).run()


def plan_with(model: ModelLike, options: TrimOptions) -> TrimJob:
    """Do what `plan_trim` does, with an options object."""
    options.check_choice()
    check_device(options.device)
    backend = find_backend(options.backend)
    source = open_source(model, trust_remote_code=options.trust_remote_code)
    out = result_folder(options.out, f"{named(model)}-trimmed", source)
    _check_out(out, source, 0, options)  # before the corpora are counted
    corpora = [find_corpus(spec) for spec in options.held_out]
    held_out = tuple(window for found in corpora for window in read_sample(found, source.tokenizer, options.field))
    chosen = _choose(source, options, backend)
    matrices = _assign(source.checkpoint, chosen.alignment)
    result = _result(source, chosen, options)
    edit = Edit(source.checkpoint, matrices, result.configs, files=result.files)
    layout = lay_out(edit)
    written = layout.written(options.link)
    _check_out(out, source, written, options)
    task = RowTask(
        source=source,
        target=chosen.trimmed.tokenizer,
        donor=None,
        alignment=chosen.alignment,
        methods=Methods(make_initializer("mean")),
        context=Context(memory=0),
    )
    compares = _compares_outputs(source, options)
    compared = compares and source.loaded is None
    gguf = plan_gguf(options, edit, layout, GgufTarget(chosen.trimmed.tokenizer, out), force=options.force)
    notes = (*source.tokenizer.notes, *chosen.notes, *result.notes, *_left_out(options, compares))
    plan = Plan(
        operation="trim",
        names=Names(source.name, source.name, None, out=str(out) if out is not None else ""),
        request=Request(method="", settings={}, options=options.recorded()),
        change=VocabularyChange(
            family_before=source.tokenizer.family,
            family_after=source.tokenizer.family,
            bos_added=False,
            tied=source.checkpoint.tied,
        ),
        coverage=chosen.alignment.counts(),
        matrices=matrix_plans(source.checkpoint, matrices),
        sizes=sizes_of(source.checkpoint, layout, options.link),
        estimate=estimate(task, matrices, written=written, checks=_check_bytes(source, compared)),
        notes=(*notes, *(gguf.notes if gguf else ())),
        counted=TrimFacts(chosen.selection.corpora, chosen.selection.least),
    )
    return TrimJob(
        plan=plan,
        edit=edit,
        layout=layout,
        task=task,
        trimmed=chosen.trimmed,
        options=options,
        sample=chosen.selection.sample,
        held_out=held_out,
        compares_outputs=compares,
        gguf=gguf,
    )


def _check_bytes(source: SourceModel, compared: bool) -> int:
    return reload_bytes(source.tokenizer) + (comparison_bytes(source.checkpoint) if compared else 0)


def _left_out(options: TrimOptions, compares: bool) -> tuple[str, ...]:
    return (_TOO_LARGE,) if options.check == "auto" and not compares else ()


def _check_out(out: Path | None, source: SourceModel, needed: int, options: TrimOptions) -> None:
    if out is not None:
        check_output(out, sources=[source.path], needed=needed, force=options.force)


def _choose(source: SourceModel, options: TrimOptions, backend: Backend) -> Chosen:
    """Choose the tokens of the result."""
    step = heal_step(options, source)
    step_notes = check_training(step, source)  # before the corpora are counted
    tokenizer, rows = source.tokenizer, source.checkpoint.matrices[0].rows
    size = len(tokenizer.vocabulary)
    needed = _needed(source.checkpoint, size, rows)
    if options.like is not None:
        selection = as_in(Path(options.like), tokenizer, needed.ids)
    else:
        selection = counted(
            options.choice,
            tokenizer,
            needed.ids,
            texts=fixed_texts(source.checkpoint.config, source.checkpoint.modules, source.checkpoint.processors),
            extra_rows=len(needed.extra),
            multiple=options.pad_to_multiple,
            backend=backend,
            progress=options.progress,
        )
    trimmed = rebuilt(tokenizer, selection.ids.tolist())
    alignment = rows_of(trimmed.kept, selection.reason, list(needed.extra), size, rows, options.pad_to_multiple)
    notes = (
        *source.notes,
        *selection.notes,
        *idle_notes(backend),
        *step_notes,
        *check_text(step, source, trimmed.tokenizer),
    )
    return Chosen(selection, trimmed, alignment, needed=needed, notes=notes)


def _needed(source: Checkpoint, size: int, rows: int) -> Needed:
    inside = {token for token in source.named_ids if 0 <= token < size}
    return Needed(inside, tuple(sorted(token for token in source.named_ids if size <= token < rows)))


def _assign(source: Checkpoint, alignment: Alignment) -> tuple[MatrixEdit, ...]:
    """Return what becomes of each matrix. Padding rows cannot be computed in a matrix of integers: they copy row 0."""
    copied = np.maximum(alignment.source_of, 0)
    return tuple(
        MatrixEdit(matrix, matrix.names, copied if matrix.role == "lookup" else alignment.source_of)
        for matrix in source.matrices
    )


def _result(source: SourceModel, chosen: Chosen, options: TrimOptions) -> ResultFiles:
    """The configs and files of the result."""
    checkpoint, tokenizer = source.checkpoint, chosen.trimmed.tokenizer
    ids = KeptIds(source.tokenizer.vocabulary, tokenizer.vocabulary, chosen.new_of)
    rows, trust = len(chosen.alignment), options.trust_remote_code
    result = renumbered_files(checkpoint, tokenizer, ids, rows, trust_remote_code=trust)
    ids_file = map_file(chosen.alignment.source_of[: len(chosen.new_of)], checkpoint.matrices[0].rows)
    notes = list(result.notes)
    if left_out := sorted(set(source.tokenizer.files) - set(tokenizer.files)):
        notes.append(f"left out {', '.join(left_out)}: these files have the old ids, and tokenizer.json says it all")
    return ResultFiles(result.configs, {**result.files, MAP_NAME: ids_file}, notes=tuple(notes))


def _compares_outputs(source: SourceModel, options: TrimOptions) -> bool:
    """Whether the outputs of both models are compared after writing."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    fits = source.checkpoint.nbytes <= _MODEL_CHECK_SHARE * memory
    return options.check == "full" or (options.check == "auto" and fits)
