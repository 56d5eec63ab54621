"""The transplants that make the members of an ensemble agree: one tokenizer, one bos, one set of eos."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokswap.checkpoint.configs import Configs
from tokswap.checkpoint.facts import model_facts
from tokswap.checkpoint.loaded import ModelLike
from tokswap.checkpoint.nested_configs import token_ids
from tokswap.checkpoint.source import SourceModel, named, open_source, open_target
from tokswap.ensemble.options import MemberOptions
from tokswap.errors import UsageError
from tokswap.init.estimate import tokenizer_bytes
from tokswap.report.record import versions
from tokswap.storage.digests import digest_of
from tokswap.tokenizer.loaded import TokenizerLike
from tokswap.transplant.inputs import open_inputs
from tokswap.transplant.plan import finish, prepare
from tokswap.transplant.prepared import Prepared
from tokswap.transplant.run import TransplantJob

_PREDICTS = "every member of an ensemble predicts each token of a text from those before it"
_NOT_THE_RESULT = ("seconds", "memory_bytes", "bytes_written", "notes", "out", "model", "tokenizer")
"""Keys of a plan that do not decide its result. Names do not, since contents are compared."""
_OPTIONS_APART = ("link", "memory", "device", "backend", "heal")
"""The same for its options; the contents of texts to heal with are compared."""


@dataclass(frozen=True)
class MemberJob:
    """One member to be made.

    Attributes:
        name: Name of the member and of its folder.
        model: How the user named its model.
        job: The transplant that makes it.
        changes: Whether its vocabulary changes; else every id keeps its row.
    """

    name: str
    model: str
    job: TransplantJob
    changes: bool

    @property
    def digest(self) -> str:
        """A digest of everything that decides the result but the weights of the source."""
        plan = self.job.plan.as_dict()
        for key in _NOT_THE_RESULT:
            del plan[key]
        texts = [digest_of(Path(path)) for path in plan["options"]["heal"]]
        plan["options"] = {key: value for key, value in plan["options"].items() if key not in _OPTIONS_APART}
        files = {name: digest_of(content) for name, content in self.job.edit.files.items()}
        configs = dataclasses.asdict(self.job.edit.configs)
        content = [plan, files, configs, texts, versions()["tokswap"]]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def source_files(self) -> dict[str, str]:
        """Name -> SHA-256 of the source's weights."""
        source = self.job.edit.checkpoint
        return {shard.path.name: digest_of(shard.path) for shard in source.shards} if source.on_disk else {}


def plan_members(
    models: Sequence[ModelLike], tokenizer: TokenizerLike, out: Path, options: MemberOptions
) -> tuple[MemberJob, ...]:
    """Plan a transplant for each model to `out`/NAME. All results begin texts alike and stop at the same tokens.

    Raises:
        UsageError: too-few-members.
        InputError: not-causal, not-text-only, and what a transplant raises.
    """
    if len(models) < 2:
        message = f"an ensemble has two members at least, not {len(models)}"
        raise UsageError("too-few-members", message, "repeat --model")
    trust = options.trust_remote_code
    target = open_target(tokenizer, trust_remote_code=trust)
    sources = [open_source(model, trust_remote_code=trust) for model in models]
    names = _names(models)
    changes = []
    for source in sources:
        facts = model_facts(source.checkpoint.config)
        facts.require_causal(source.checkpoint.folder, _PREDICTS)
        facts.require_text_only(source.checkpoint.folder)
        changes.append(list(source.tokenizer.vocabulary.text) != list(target.tokenizer.vocabulary.text))

    def member(n: int, bos: str) -> Prepared:
        own = options.of_member(out / names[n], bos, changes=changes[n])
        return prepare(open_inputs(sources[n], target, own), own)

    prepared = _with_one_bos([member(n, options.bos) for n in range(len(models))], member)
    prepared = _with_one_eos(prepared, changes)
    jobs = [_beside(finish(one, default_out=name), sources) for one, name in zip(prepared, names, strict=True)]
    return tuple(
        MemberJob(name, job.plan.names.model, job, changes=changed)
        for name, job, changed in zip(names, jobs, changes, strict=True)
    )


def _beside(job: TransplantJob, sources: Sequence[SourceModel]) -> TransplantJob:
    """Count the tokenizers of the other members, which are held too."""
    others = sum(tokenizer_bytes(source.tokenizer) for source in sources if source is not job.task.source)
    needs = dataclasses.replace(job.plan.estimate, memory_bytes=job.plan.estimate.memory_bytes + others)
    return dataclasses.replace(job, plan=dataclasses.replace(job.plan, estimate=needs))


def _names(models: Sequence[ModelLike]) -> list[str]:
    """A folder name for each model: its own, with a number where two have the same."""
    names: list[str] = []
    for model in models:
        name = named(model)
        names.append(next(n for n in (name, *(f"{name}-{k}" for k in range(2, len(models) + 2))) if n not in names))
    return names


def _with_one_bos(prepared: list[Prepared], member: Any) -> list[Prepared]:
    """Let all members begin texts alike where one of them needs bos."""
    wanted = list(dict.fromkeys(_bos_text(one) for one in prepared if one.bos is not None))
    if not wanted:
        return prepared
    vocabulary = prepared[0].inputs.target.tokenizer.vocabulary
    own = vocabulary.text[vocabulary.roles["bos"]] if "bos" in vocabulary.roles else None
    text = own if own in wanted else wanted[0]
    return [
        one if one.bos is not None and _bos_text(one) == text else member(n, text) for n, one in enumerate(prepared)
    ]


def _bos_text(prepared: Prepared) -> str:
    return str(prepared.configs.tokenizer["bos_token"])


def _with_one_eos(prepared: Sequence[Prepared], changes: Sequence[bool]) -> list[Prepared]:
    """Let every member stop where any of them would."""
    eos: list[int] = []
    for one, changed in zip(prepared, changes, strict=True):
        found: list[Mapping[str, Any]] = [one.configs.model, one.configs.generation]
        if not changed:  # its own ids mean what they meant
            source = one.inputs.source.checkpoint
            found += [source.config, source.generation_config]
        eos += [token for config in found for token in token_ids(config, "eos_token_id")]
    eos = list(dict.fromkeys(eos))
    return [one.with_configs(_stopping_at(one.configs, eos)) for one in prepared]


def _stopping_at(configs: Configs, eos: Sequence[int]) -> Configs:
    """Return configs whose generation config has these ids of eos."""
    generation = dict(configs.generation)
    if not generation:
        keys = ("bos_token_id", "pad_token_id")
        generation = {key: configs.model[key] for key in keys if configs.model.get(key) is not None}
    if eos:
        generation["eos_token_id"] = list(eos) if len(eos) > 1 else eos[0]
    return dataclasses.replace(configs, generation=generation)
