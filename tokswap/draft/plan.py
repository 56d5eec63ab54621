"""A draft model for speculative decoding: a small model with a big model's vocabulary, id for id."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokswap.checkpoint.configs import Configs
from tokswap.checkpoint.facts import ModelFacts, model_facts
from tokswap.checkpoint.loaded import ModelLike
from tokswap.checkpoint.nested_configs import text_config, text_configs
from tokswap.checkpoint.reader import has_weights, open_checkpoint
from tokswap.checkpoint.source import named, open_source
from tokswap.draft.options import DraftOptions
from tokswap.draft.sides import config_ids
from tokswap.draft.target import DraftTarget, open_draft_target
from tokswap.errors import InputError, UsageError
from tokswap.heal.inputs import check_languages, check_model
from tokswap.heal.options import HealOptions
from tokswap.heal.step import HealStep, shared_options
from tokswap.options.keywords import two_and_keywords
from tokswap.report.record import Report
from tokswap.report.wording import size
from tokswap.transplant.inputs import open_inputs
from tokswap.transplant.options import TransplantOptions
from tokswap.transplant.plan import finish, prepare
from tokswap.transplant.prepared import Prepared
from tokswap.transplant.run import TransplantJob

_KINDS = {"causal": "a causal language model", "encoder-decoder": "an encoder-decoder"}
_EPOCHS = 1
"""How often a draft reads its text: more text is worth more than a second epoch."""
_READS_MORE = "the target also reads images or audio, and the draft does not: it guesses the text after them blindly"


@two_and_keywords(DraftOptions)
def make_draft(model: ModelLike, target: ModelLike, options: DraftOptions) -> Report:
    """Make a small model a draft of a big one and write it.

    Args:
        model: The small model, whose layers are kept.
        target: The big model. Only its tokenizer and configs are read; where its folder has weights they are the donor.
        options: See below.

    Returns:
        What was done; `.load()` loads the draft.

    Raises:
        InputError: different-modality, unequal-vocabulary, and what `plan_transplant` raises.
    """
    return plan_with(model, target, options).run()


@two_and_keywords(DraftOptions)
def plan_draft(model: ModelLike, target: ModelLike, options: DraftOptions) -> TransplantJob:
    """Check the making of a draft and say what it will do, without reading a weight.

    The result has the target's vocabulary id for id with its added tokens, its padded `vocab_size`, its tokenizer
    files and chat template as they are (a bos that only the small model wants is not added), its bos, eos and pad
    ids, and its generation config.

    Args:
        model: The small model, whose layers are kept.
        target: The big model. A hub id's weights are never downloaded for a draft: name them with `donor`.
        options: See below.

    Raises:
        InputError: different-modality, unequal-vocabulary, and what `plan_transplant` raises.
    """
    return plan_with(model, target, options)


def plan_with(model: ModelLike, target: ModelLike, options: DraftOptions) -> TransplantJob:
    """Do what `plan_draft` does, with an options object."""
    opened = open_draft_target(target, options.trust_remote_code)
    step = _distillation(options, opened)
    options, notes = _with_fit_donor(options, opened)
    transplant = options.as_transplant(opened.rows)
    inputs = open_inputs(model, opened.opened, transplant)
    source = inputs.source.checkpoint
    notes = (*_check_kinds(model_facts(source.config), model_facts(opened.config), source.folder, opened), *notes)
    prepared = prepare(inputs, _untied(transplant, options.propose))
    prepared = dataclasses.replace(
        prepared,
        copied_head=options.propose == "copied",
        notes=(*notes, *_proposal_notes(prepared, options.propose), *prepared.notes),
    )
    prepared = prepared.with_configs(draft_configs(prepared, opened))
    default_out = f"{named(model)}-for-{named(target)}"
    job = finish(prepared, default_out=default_out, operation="draft", owner=opened.name, step=step)
    request = dataclasses.replace(job.plan.request, options=options.recorded())
    return dataclasses.replace(job, plan=dataclasses.replace(job.plan, request=request))


def _check_kinds(small: ModelFacts, big: ModelFacts, folder: Path, target: DraftTarget) -> tuple[str, ...]:
    """Refuse models of different kinds; returns notes about the pair."""
    if small.kind != big.kind or small.kind == "other":
        kinds = [
            _KINDS.get(facts.kind, f"a {facts.architecture}, which does not generate text") for facts in (small, big)
        ]
        raise InputError(
            "different-modality",
            f"a draft generates text as its target does, and the model is {kinds[0]}, the target {kinds[1]}",
            "use two causal language models, or two encoder-decoders",
            model=folder,
            target=target.folder,
        )
    return (_READS_MORE,) if big.modalities - small.modalities else ()


def _untied(transplant: TransplantOptions, propose: str) -> TransplantOptions:
    """Give lm_head a matrix of its own where only copied tokens are proposed: the draft still reads the others.

    Raises:
        UsageError: one-matrix.
    """
    if propose != "copied":
        return transplant
    if transplant.tie is True or transplant.output_init is not None:
        flag = "--tie" if transplant.tie is True else "--init-output"
        message = f"{flag} does not go with --propose copied, which makes an lm_head of copied and neutral rows"
        raise UsageError("one-matrix", message, f"leave out {flag}, or --propose")
    return dataclasses.replace(transplant, tie=False)


def _proposal_notes(prepared: Prepared, propose: str) -> tuple[str, ...]:
    """Say what the draft never proposes, and what that takes."""
    if propose != "copied":
        return ()
    count, rows = len(prepared.alignment.missing), len(prepared.alignment)
    note = f"{count:,} of {rows:,} tokens are read and never proposed, because their rows are initialised"
    heads = [edit for edit in prepared.matrices if edit.matrix.role == "output"]
    if not prepared.inputs.source.checkpoint.tied or not heads:
        return (note,)
    return (note, f"lm_head becomes a matrix of its own, for {size(heads[0].nbytes)} more; a token takes no longer")


def _distillation(options: DraftOptions, target: DraftTarget) -> HealStep | None:
    """Return how the draft is trained: the target teaches. Raises UsageError missing-teacher, missing-text."""
    check_languages(options)
    if not options.distills:
        return None
    teacher = target.model
    if isinstance(teacher, str) and not has_weights(target.folder):
        if options.donor is None or str(options.donor) == "none":
            message = "the target teaches the draft, and here are only its tokenizer and configs"
            hint = "name a folder with the weights as --target, or name it with --donor"
            raise UsageError("missing-teacher", message, hint, target=target.folder)
        teacher = str(options.donor)
    check_model(open_source(teacher, trust_remote_code=options.trust_remote_code).checkpoint)
    settings = HealOptions(
        teacher=teacher,
        epochs=_EPOCHS,
        self_text=options.self_text,
        self_text_languages=options.self_text_languages,
        **shared_options(options),
    )
    return HealStep(options.distill, settings, flag="--distill", one_tokenizer=True)


def _with_fit_donor(options: DraftOptions, target: DraftTarget) -> tuple[DraftOptions, tuple[str, ...]]:
    """Do without a donor where the target's weights cannot be one: pickled, quantised, or not understood."""
    if options.donor is not None or not isinstance(target.model, str) or not has_weights(target.folder):
        return options, ()
    try:
        matrix = open_checkpoint(target.folder).matrix("input")
        fits = matrix is not None and matrix.rows >= len(target.tokenizer.vocabulary)
        problem = "" if fits else "they have fewer rows than its tokenizer has ids"
    except InputError as error:
        problem = error.message
    if not problem:
        return options, ()
    note = f"the target's weights cannot be the donor, so no donor is used: {problem}"
    return dataclasses.replace(options, donor="none"), (note,)


def draft_configs(prepared: Prepared, target: DraftTarget) -> Configs:
    """Return the configs of a draft: the target's ids of bos, eos and pad, and its generation config."""
    own = prepared.configs
    ids = {f"{role}_token_id": _ids_of(target, role) for role in ("bos", "eos", "pad")}
    generation = dict(target.generation)
    if not generation and own.generation:
        generation = {**own.generation, **{key: value for key, value in ids.items() if value is not None}}
    return Configs(model=_with_ids(own.model, ids), generation=generation, tokenizer=own.tokenizer)


def _ids_of(target: DraftTarget, role: str) -> int | list[int] | None:
    """The target's id of a role as its config has it: one, several, or else its tokenizer's."""
    ids = config_ids(target.config, role)
    if not ids:
        return target.tokenizer.vocabulary.roles.get(role)
    return ids if len(ids) > 1 else ids[0]


def _with_ids(config: Mapping[str, Any], ids: Mapping[str, int | list[int] | None]) -> dict[str, Any]:
    """Set the ids where the small model has them, and in any case where its text model is described."""
    result = {**config}
    path, _ = text_config(result)
    for at, child in text_configs(result):
        assert isinstance(child, dict)
        child.update({key: value for key, value in ids.items() if key in child or at == path})
    return result
