"""A draft model for speculative decoding: a small model with a big model's vocabulary, id for id."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokswap.checkpoint.matrices import configs, text_config
from tokswap.checkpoint.reader import has_weights, open_checkpoint
from tokswap.draft.engines import config_ids
from tokswap.errors import InputError
from tokswap.report.record import Report
from tokswap.storage.json_files import read_json
from tokswap.storage.resolve import resolve_model, resolve_tokenizer, short_name
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer
from tokswap.transplant.plan import Transplant, plan_transplant

_CAUSAL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_SENSES = ("vision_config", "audio_config")
_FIXED = ("vocab_size", "pad_to_multiple", "bos", "tokenizer", "trim_corpora", "trim_languages", "trim_size")


def make_draft(model: str, target: str, *, progress: bool = False, **options: Any) -> Report:
    """Make a draft model and write it; see `plan_draft` for the options."""
    return plan_draft(model, target, **options).run(progress=progress)


def plan_draft(
    model: str,
    target: str,
    *,
    out: str | Path | None = None,
    donor: str | None = None,
    trust_remote_code: bool = False,
    **options: Any,
) -> Transplant:
    """Check the making of a draft model and say what it will do, without reading a weight.

    model: the small model whose layers are kept. target: the big model, of which the tokenizer and the configs are read;
    where its folder has weights they are the donor. A hub id's weights are never downloaded for that: `donor` names it
    then. options: those of `plan_transplant`, but for the ones that would make the vocabularies differ.

    The result has the target's vocabulary id for id with its added tokens, its padded `vocab_size`, its tokenizer files
    and chat template as they are (a bos that only the small model wants is not added), its bos, eos and pad ids, and its
    generation config. Raises InputError different-modality, unequal-vocabulary and what `plan_transplant` raises.
    """
    if unknown := sorted(set(options) & set(_FIXED)):
        raise TypeError(f"a draft takes its vocabulary from its target: {', '.join(unknown)} cannot be chosen")
    folder = resolve_tokenizer(target)
    folder = folder.parent if folder.is_file() else folder
    config = read_json(folder / "config.json", "config")
    generation_path = folder / "generation_config.json"
    generation = read_json(generation_path, "config") if generation_path.is_file() else {}
    rows = text_config(config, folder)[1]["vocab_size"]
    tokenizer = read_tokenizer(folder, trust_remote_code=trust_remote_code)
    if len(tokenizer.vocabulary) > rows:
        raise InputError(
            "unequal-vocabulary",
            f"the target's tokenizer has {len(tokenizer.vocabulary):,} ids and its vocab_size is {rows:,}: no draft can "
            "have both",
            "tokens without a row cannot be used; remove them from the target's tokenizer.json, or correct its vocab_size",
            target=folder,
        )
    source = open_checkpoint(resolve_model(model))
    notes = _kinds(source.config, config, source.folder, folder)
    if donor is None and has_weights(folder) and (problem := _unfit(folder, tokenizer)):
        notes.append(f"the target's weights cannot be the donor, so new rows are made without one: {problem}")
        donor = "none"
    if out is None:
        out = f"{short_name(model)}-for-{short_name(target)}"
    job = plan_transplant(
        model,
        str(folder),
        donor=donor,
        out=out,
        vocab_size=rows,
        bos="keep",
        trust_remote_code=trust_remote_code,
        **options,
    )
    files = dict(job.edit.files)
    ids = {f"{role}_token_id": _one_or_all(config, tokenizer, role) for role in ("bos", "eos", "pad")}
    files["config.json"] = _json(_with_ids(_content(files["config.json"]), ids))
    own = _content(files["generation_config.json"]) if "generation_config.json" in files else {}
    fitting = _generation(own, generation, ids)
    files.pop("generation_config.json", None)
    if fitting:
        files["generation_config.json"] = _json(fitting)
    plan = dataclasses.replace(job.plan, operation="draft", tokenizer=target, notes=(*notes, *job.plan.notes))
    return dataclasses.replace(job, edit=dataclasses.replace(job.edit, files=files), plan=plan)


def _kinds(small: Mapping[str, Any], big: Mapping[str, Any], small_folder: Path, big_folder: Path) -> list[str]:
    """Refuse models of different kinds; return what else should be known about the pair."""
    kinds = [_kind(config) for config in (small, big)]
    if kinds[0] != kinds[1] or kinds[0].startswith("no "):
        raise InputError(
            "different-modality",
            f"a draft writes text as its target does, and the model is {kinds[0]}, the target {kinds[1]}",
            "take two causal language models, or two encoder-decoders",
            model=small_folder,
            target=big_folder,
        )
    senses = [
        {key for _, child in configs(config) for key in _SENSES if isinstance(child.get(key), dict)}
        for config in (small, big)
    ]
    if senses[1] - senses[0]:
        return [
            "the target also reads pictures or sound, and the draft will not: it guesses the text after them blindly"
        ]
    return []


def _kind(config: Mapping[str, Any]) -> str:
    if config.get("is_encoder_decoder"):
        return "an encoder with a decoder"
    names = config.get("architectures") or []
    if not names or any(str(name).endswith(_CAUSAL) for name in names):
        return "a causal language model"
    return f"no model that writes text ({names[0]})"


def _unfit(folder: Path, tokenizer: Tokenizer) -> str | None:
    """Say why the target's weights cannot be the donor: pickled, quantised, or not understood."""
    try:
        table = open_checkpoint(folder).matrix("input")
    except InputError as error:
        return error.message
    if table is None or table.rows < len(tokenizer.vocabulary):
        return "they have fewer rows than its tokenizer has ids"
    return None


def _one_or_all(config: Mapping[str, Any], tokenizer: Tokenizer, role: str) -> int | list[int] | None:
    """The target's id of a role as its config has it: one, several, or else its tokenizer's."""
    ids = config_ids(config, role)
    if not ids:
        return tokenizer.vocabulary.roles.get(role)
    return ids if len(ids) > 1 else ids[0]


def _with_ids(config: dict[str, Any], ids: Mapping[str, int | list[int] | None]) -> dict[str, Any]:
    """Set the ids where the small model has them, and in any case where its text model is described."""
    path, _ = text_config(config)
    for at, child in configs(config):
        assert isinstance(child, dict)
        child.update({key: value for key, value in ids.items() if key in child or at == path})
    return config


def _generation(
    own: Mapping[str, Any], target: Mapping[str, Any], ids: Mapping[str, int | list[int] | None]
) -> dict[str, Any]:
    """The target's generation config, since a draft is accepted most often where it samples as the target does.

    A target without one: the small model's, with the target's ids.
    """
    if target:
        return dict(target)
    return {**own, **{key: value for key, value in ids.items() if value is not None}} if own else {}


def _content(file: bytes | Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(file if isinstance(file, bytes) else file.read_bytes())
    return value


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode()
