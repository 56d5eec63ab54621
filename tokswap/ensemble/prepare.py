"""Prepare an ensemble: plan a transplant for every member, let them agree on bos and eos, and run what is not done yet."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokswap.checkpoint.configs import token_ids
from tokswap.checkpoint.reader import open_checkpoint
from tokswap.ensemble.members import FILE, Ensemble, Member, check_kind, read_ensemble, read_weights, vocabulary_digest
from tokswap.errors import OutputError, UsageError
from tokswap.report.record import REPORT_NAME, versions
from tokswap.storage.atomic import check_room, held
from tokswap.storage.json_files import read_json
from tokswap.storage.resolve import resolve_model, resolve_tokenizer, short_name
from tokswap.tokenizer.tokenizer import read_tokenizer
from tokswap.transplant.plan import Transplant, plan_transplant

_NOT_THE_RESULT = ("seconds", "memory_bytes", "bytes_written", "notes", "out", "model", "tokenizer")
"""What a plan holds besides what decides its result; names are none of it, since contents are compared. And options:"""
_NO_SETTINGS = ("link", "memory", "device", "backend", "calibrate")


@dataclass(frozen=True)
class MemberJob:
    """One member to be made. moved: whether its vocabulary changes; else every id keeps its own row."""

    name: str
    model: str
    job: Transplant
    moved: bool

    @property
    def digest(self) -> str:
        """A digest of everything that decides the result but the weights of the source."""
        plan = self.job.plan.as_dict()
        for key in _NOT_THE_RESULT:
            del plan[key]
        texts = [_digest_of(Path(path)) for path in plan["options"]["calibrate"]]
        plan["options"] = {key: value for key, value in plan["options"].items() if key not in _NO_SETTINGS}
        files = {name: _digest_of(content) for name, content in self.job.edit.files.items()}
        content = [plan, files, texts, versions()["tokswap"]]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def source_files(self) -> dict[str, str]:
        """Name -> SHA-256 of the source's weights."""
        return {shard.path.name: _digest_of(shard.path) for shard in self.job.source.shards}


@dataclass(frozen=True)
class Preparation:
    """An ensemble that has been checked and is ready to be made; from `plan_ensemble`.

    ensemble: what will stand in ensemble.json, without the files of the members in `unfinished`. jobs: one a member.
    """

    ensemble: Ensemble
    jobs: tuple[MemberJob, ...]

    def run(
        self, *, progress: bool = False, done: Callable[[str, float], object] = lambda name, seconds: None
    ) -> Ensemble:
        """Make the members that are not there yet, one after the other; returns the finished ensemble.

        done: told each member as it is finished, and its seconds. Each member appears whole or not at all, and
        ensemble.json names those that are left, so that a run that was stopped can be run again.
        Raises OutputError output-in-use, and what a transplant raises; the finished members stay.
        """
        with held(self.ensemble.folder, wait=False):
            return self._run(progress, done)

    def _run(self, progress: bool, done: Callable[[str, float], object]) -> Ensemble:
        ensemble = self.ensemble
        ensemble.write()
        for job in self.jobs:
            if job.name not in ensemble.unfinished:
                continue
            source_files = job.source_files
            report = job.job.run(progress=progress)
            files = _digests(ensemble.folder / job.name)
            members = (
                dataclasses.replace(member, source_files=source_files, files=files)
                if member.name == job.name
                else member
                for member in ensemble.members
            )
            left = tuple(name for name in ensemble.unfinished if name != job.name)
            ensemble = dataclasses.replace(ensemble, members=tuple(members), unfinished=left)
            ensemble.write()
            done(job.name, report.seconds["all"])
        return ensemble


def prepare_ensemble(models: Sequence[str], tokenizer: str, out: str | Path, **options: Any) -> Ensemble:
    """Put models on one tokenizer and write them to one folder; see `plan_ensemble` for the options."""
    progress = options.pop("progress", False)
    return plan_ensemble(models, tokenizer, out, **options).run(progress=progress)


def plan_ensemble(
    models: Sequence[str],
    tokenizer: str,
    out: str | Path,
    *,
    weights: str | Sequence[float] | None = None,
    choice: Mapping[str, Any] | None = None,
    bos: str = "auto",
    force: bool = False,
    **options: Any,
) -> Preparation:
    """Check an ensemble and say what will be done, without reading a weight but those of members that are there already.

    models: folders, hub ids, aliases or .gguf files, two at least, of causal language models. tokenizer: the one that all will
    have. out: the folder of the result: a folder a member, named like its model, and ensemble.json. weights: equal by
    default. choice: how the tokenizer was chosen, kept in ensemble.json. options: of `plan_transplant` (init, settings,
    output_init, calibrate, donor, seed, device, memory, link, trust_remote_code); they are for the members whose vocabulary changes.

    A member that has the vocabulary already keeps every row, and gets the shared tokenizer files and ids of eos. A member
    that an earlier run has finished, from the same weights and with the same options, is kept as it is.

    Raises UsageError too-few-members, bad-weights; InputError not-causal, not-text-only and what a transplant raises;
    OutputError output-exists and others.
    """
    out = Path(out)
    shares = read_weights(weights, len(models))
    jobs = plan_members(models, tokenizer, out, bos=bos, **options)
    before = _before(out, force)
    strangers = sorted(set(before) - {job.name for job in jobs})
    if strangers and not force:
        raise OutputError(
            "output-exists",
            f"an ensemble with other members is there already: {', '.join(strangers)}",
            "choose another --out, or --force",
            out=out,
        )
    records: list[Member] = []
    left: list[str] = []
    for job, weight in zip(jobs, shares, strict=True):
        made = job.job.plan.coverage.get("missing", 0)
        record = Member(job.name, weight, job.model, made, job.digest)
        old = before.get(job.name)
        if old is not None and _is_done(job, record, old, out, force):
            record = dataclasses.replace(record, source_files=old.source_files, files=old.files)
        else:
            _check_free(job, record, old, out, force)
            left.append(job.name)
        records.append(record)
    check_room(out / FILE, sum(job.job.plan.bytes_written for job in jobs if job.name in left))
    target = jobs[0].job.target
    ensemble = Ensemble(
        out, tuple(records), tokenizer, vocabulary_digest(target.vocabulary), dict(choice or {}), tuple(left)
    )
    return Preparation(ensemble, jobs)


def plan_members(
    models: Sequence[str], tokenizer: str, out: Path, *, bos: str = "auto", **options: Any
) -> tuple[MemberJob, ...]:
    """Plan a transplant for each model to `out`/NAME. All results begin texts alike, and stop at the same tokens."""
    if len(models) < 2:
        raise UsageError(
            "too-few-members", f"an ensemble has two members at least, not {len(models)}", "repeat --model"
        )
    trusted = bool(options.get("trust_remote_code", False))
    folders = [resolve_model(model) for model in models]
    for folder in folders:
        check_kind(open_checkpoint(folder))
    target = read_tokenizer(resolve_tokenizer(tokenizer), trust_remote_code=trusted).vocabulary.text
    moved = [list(read_tokenizer(f, trust_remote_code=trusted).vocabulary.text) != list(target) for f in folders]

    def plan(n: int, bos: str) -> Transplant:
        # A member that is there already is looked into later, and not refused here for being there.
        own = {**options, "out": out / names[n], "bos": bos, "force": True}
        if not moved[n]:
            changes = ("donor", "settings", "output_init", "calibrate")
            own = {**{key: own[key] for key in own if key not in changes}, "init": "mean", "keep_rows": True}
        return plan_transplant(models[n], tokenizer, **own)

    names = _names(models)
    jobs = [plan(n, bos) for n in range(len(models))]
    wanted = list(dict.fromkeys(_bos_text(job) for job in jobs if job.plan.bos_added))
    if wanted:  # one member needs bos at the beginning, and all must read the same ids
        roles = jobs[0].target.vocabulary.roles
        own = jobs[0].target.vocabulary.text[roles["bos"]] if "bos" in roles else None
        text = own if own in wanted else wanted[0]
        for n, job in enumerate(jobs):
            if not job.plan.bos_added or _bos_text(job) != text:
                jobs[n] = plan(n, text)
    jobs = _with_one_eos(jobs, moved)
    return tuple(MemberJob(*each) for each in zip(names, models, jobs, moved, strict=True))


def _names(models: Sequence[str]) -> list[str]:
    """A folder name a model: that of the model, with a number where two are called the same."""
    names: list[str] = []
    for model in models:
        name = short_name(model)
        names.append(next(n for n in (name, *(f"{name}-{k}" for k in range(2, len(models) + 2))) if n not in names))
    return names


def _bos_text(job: Transplant) -> str:
    return str(_content(job, "tokenizer_config.json")["bos_token"])


def _with_one_eos(jobs: list[Transplant], moved: Sequence[bool]) -> list[Transplant]:
    """Let every member stop where any of them would."""
    eos: list[int] = []
    for job, changed in zip(jobs, moved, strict=True):
        found = [_content(job, "config.json"), _content(job, "generation_config.json")]
        if not changed:  # its own ids mean what they meant
            found += [dict(job.source.config), dict(job.source.generation_config)]
        eos += [token for config in found for token in token_ids(config, "eos_token_id")]
    eos = sorted(set(eos), key=eos.index)
    result = []
    for job in jobs:
        config, generation = _content(job, "config.json"), _content(job, "generation_config.json")
        if not generation:
            generation = {key: config[key] for key in ("bos_token_id", "pad_token_id") if config.get(key) is not None}
        if eos:
            generation["eos_token_id"] = eos if len(eos) > 1 else eos[0]
        files = {**job.edit.files, "generation_config.json": json.dumps(generation, indent=2).encode()}
        result.append(dataclasses.replace(job, edit=dataclasses.replace(job.edit, files=files)))
    return result


def _content(job: Transplant, name: str) -> dict[str, Any]:
    content = job.edit.files.get(name, b"{}")
    value = json.loads(content if isinstance(content, bytes) else content.read_bytes())
    assert isinstance(value, dict)
    return value


# What is there already.


def _before(out: Path, force: bool) -> dict[str, Member]:
    """The members of an earlier run in the same folder, finished or not."""
    if not (out / FILE).is_file():
        return {}
    try:
        return {member.name: member for member in read_ensemble(out, unfinished=True).members}
    except Exception:
        if force:
            return {}
        raise


def _is_done(job: MemberJob, wanted: Member, old: Member, out: Path, force: bool) -> bool:
    """Whether a member is what this run would make, to the byte. Raises OutputError output-exists where it is not."""
    if not old.files or not (out / job.name).is_dir():
        return False
    if wanted.plan != old.plan:
        problem = "it was made with another request or another release"
    elif job.source_files != old.source_files:
        problem = f"the weights of {job.model} are others than those that it was made from"
    else:
        changed = [name for name, digest in old.files.items() if _digest_of(out / job.name / name) != digest]
        if not changed:
            return True
        problem = f"{', '.join(changed[:3])} changed since it was made"
    if not force:
        raise _taken(out / job.name, problem)
    return False


def _check_free(job: MemberJob, wanted: Member, old: Member | None, out: Path, force: bool) -> None:
    """Raise OutputError where a member's folder is taken by something that is not the leavings of this same request."""
    place = out / job.name
    if force or not place.exists() or not any(place.iterdir()):
        return
    report = place / REPORT_NAME
    unrecorded = old is not None and not old.files and old.plan == wanted.plan and report.is_file()
    if unrecorded and read_json(report, "report").get("plan", {}).get("coverage") == job.job.plan.coverage:
        return  # finished, but the run was stopped before it could say so
    if old is None or not old.files:
        raise _taken(place, "it was not made by this request")


def _taken(place: Path, problem: str) -> OutputError:
    message = f"the member's folder is there already, and {problem}"
    return OutputError("output-exists", message, "choose another --out, or --force to make it again", folder=place)


def _digests(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): _digest_of(path) for path in files}


def _digest_of(content: bytes | Path) -> str:
    """SHA-256 of bytes, a file or a folder; "" for what is not there."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    if content.is_dir():
        return hashlib.sha256(json.dumps(_digests(content)).encode()).hexdigest()
    if not content.is_file():
        return ""
    digest = hashlib.sha256()
    with open(content, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
