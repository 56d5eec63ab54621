"""Prepares an ensemble: puts every model on one tokenizer, and makes the members that do not exist yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokswap.checkpoint.loaded import ModelLike
from tokswap.ensemble.jobs import MemberJob, plan_members
from tokswap.ensemble.members import FILE, Ensemble, Member, read_ensemble, read_weights, vocabulary_digest
from tokswap.ensemble.options import EnsembleOptions
from tokswap.errors import OutputError
from tokswap.options.keywords import three_and_keywords
from tokswap.report.record import REPORT_NAME
from tokswap.storage.atomic import check_room, held
from tokswap.storage.digests import digest_of, digests
from tokswap.storage.json_files import read_json
from tokswap.storage.resolve import output_path
from tokswap.tokenizer.loaded import TokenizerLike


@dataclass(frozen=True)
class EnsembleJob:
    """An ensemble that has been checked and is ready to be made; from `plan_ensemble`.

    Attributes:
        ensemble: What ensemble.json will say, without the files of the members in `unfinished`.
        jobs: One per member.
    """

    ensemble: Ensemble
    jobs: tuple[MemberJob, ...]

    def run(self, done: Callable[[str, float], object] = lambda name, seconds: None) -> Ensemble:
        """Make the members that do not exist yet, one after the other.

        Each member appears whole or not at all, and ensemble.json names those that are left, so that a run that was
        stopped can be run again.

        Args:
            done: Told each member as it is finished, and its seconds.

        Raises:
            OutputError: output-in-use, and what a transplant raises; finished members stay.
        """
        with held(self.ensemble.folder, wait=False):
            ensemble = self.ensemble
            ensemble.write()
            for job in self.jobs:
                if job.name in ensemble.unfinished:
                    source_files = job.source_files
                    report = job.job.run()
                    ensemble = _with_member(ensemble, job.name, source_files)
                    ensemble.write()
                    done(job.name, report.seconds["all"])
            return ensemble


def _with_member(ensemble: Ensemble, name: str, source_files: dict[str, str]) -> Ensemble:
    """Return the ensemble with one more finished member."""
    files = digests(ensemble.folder / name)
    members = tuple(
        dataclasses.replace(member, source_files=source_files, files=files) if member.name == name else member
        for member in ensemble.members
    )
    left = tuple(other for other in ensemble.unfinished if other != name)
    return dataclasses.replace(ensemble, members=members, unfinished=left)


@three_and_keywords(EnsembleOptions)
def prepare_ensemble(
    models: Sequence[ModelLike], tokenizer: TokenizerLike, out: str | Path, options: EnsembleOptions
) -> Ensemble:
    """Put models on one tokenizer and write them to one folder, for mixing their predictions.

    Args:
        models: Two or more causal language models.
        tokenizer: The tokenizer that all get.
        out: Folder of the result: a folder per member, named like its model, and ensemble.json.
        options: See below. Methods are for the members whose vocabulary changes.

    Raises:
        UsageError: too-few-members, bad-weights.
        InputError: not-causal, not-text-only, and what a transplant raises.
        OutputError: output-exists, output-in-use, and others.
    """
    return plan_with(models, tokenizer, out, options).run()


@three_and_keywords(EnsembleOptions)
def plan_ensemble(
    models: Sequence[ModelLike], tokenizer: TokenizerLike, out: str | Path, options: EnsembleOptions
) -> EnsembleJob:
    """Check an ensemble and say what will be done. Only weights of members that exist already are read.

    A member that has the vocabulary already keeps every row, and gets the shared tokenizer files and ids of eos. A
    member that an earlier run has finished, from the same weights and with the same options, is kept as it is.

    Args:
        models: Two or more causal language models.
        tokenizer: The tokenizer that all get.
        out: Folder of the result: a folder per member, named like its model, and ensemble.json.
        options: See below.
    """
    return plan_with(models, tokenizer, out, options)


def plan_with(
    models: Sequence[ModelLike], tokenizer: TokenizerLike, out: str | Path, options: EnsembleOptions
) -> EnsembleJob:
    """Do what `plan_ensemble` does, with an options object."""
    out = output_path(out)
    weights = read_weights(options.weights, len(models))
    jobs = plan_members(models, tokenizer, out, options.of_members)
    before = _before(out, options.force)
    strangers = sorted(set(before) - {job.name for job in jobs})
    if strangers and not options.force:
        message = f"an ensemble with other members exists there: {', '.join(strangers)}"
        raise OutputError("output-exists", message, "choose another --out, or --force", out=out)
    members: list[Member] = []
    left: list[str] = []
    for job, weight in zip(jobs, weights, strict=True):
        count = job.job.plan.coverage.get("missing", 0)
        member = Member(job.name, weight, job.model, made=count, plan=job.digest)
        old = before.get(job.name)
        if old is not None and _is_done(job, member, old, out, options.force):
            member = dataclasses.replace(member, source_files=old.source_files, files=old.files)
        else:
            _check_free(job, member, old, out, options.force)
            left.append(job.name)
        members.append(member)
    check_room(out / FILE, sum(job.job.plan.sizes.bytes_written for job in jobs if job.name in left))
    ensemble = Ensemble(
        folder=out,
        members=tuple(members),
        tokenizer=jobs[0].job.plan.names.tokenizer,
        vocabulary=vocabulary_digest(jobs[0].job.task.target.vocabulary),
        choice=dict(options.choice),
        unfinished=tuple(left),
    )
    return EnsembleJob(ensemble, jobs)


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
        problem = f"it was made from other weights than those of {job.model}"
    else:
        changed = [name for name, digest in old.files.items() if digest_of(out / job.name / name) != digest]
        if not changed:
            return True
        problem = f"{', '.join(changed[:3])} changed since it was made"
    if not force:
        raise _taken(out / job.name, problem)
    return False


def _check_free(job: MemberJob, wanted: Member, old: Member | None, out: Path, force: bool) -> None:
    """Raise OutputError where a member's folder holds something that is not left over from this same request."""
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
    message = f"the member's folder exists, and {problem}"
    return OutputError("output-exists", message, "choose another --out, or --force to rebuild it", folder=place)
