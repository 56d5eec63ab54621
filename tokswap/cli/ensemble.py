"""tokswap ensemble: prepare, check, generate, eval."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokswap.cli import _mix, _options, _output, _plan_text
from tokswap.cli._flags import option_flags, read_options
from tokswap.cli._groups import Group
from tokswap.ensemble.options import EnsembleOptions
from tokswap.errors import count_of
from tokswap.options.groups import DeviceOptions, TrustOptions
from tokswap.report.wording import duration, size

if TYPE_CHECKING:
    from tokswap.ensemble.jobs import MemberJob
    from tokswap.ensemble.members import Ensemble
    from tokswap.ensemble.prepare import EnsembleJob


@click.group(
    cls=Group,
    epilog="""
\b
Examples:
  tokswap ensemble prepare --model ./a --model ./b --tokenizer ./b --out ./ab
  tokswap ensemble check ./ab
  tokswap ensemble generate ./ab --prompt 'The ferry leaves at nine, and'
  tokswap ensemble eval ./ab --text notes.txt --sources
""",
)
def ensemble() -> None:
    """Average the predictions of several models.

    Averages need members with the same ids and the same tokenization of every text. `prepare` makes such members,
    `check` tests them, `generate` and `eval` mix them. Prepared members of one architecture can be merged too.
    """


@ensemble.command(
    epilog="""
\b
Examples:
  # see what would happen, without reading a weight
  tokswap ensemble prepare --model ./a --model ./b --tokenizer ./b --out ./ab --dry-run
\b
  # three models on the tokenizer of one of them, which counts twice
  tokswap ensemble prepare --model ./a --model ./b --model ./c --tokenizer ./b --weights 1,2,1 --out ./abc
\b
  # find out whose tokenizer costs the others least on a text
  tokswap ensemble prepare --model ./a --model ./b --tokenizer auto --text notes.txt --out ./ab
"""
)
@_options.model_option(
    "--model models",
    "A member: folder, hub id, alias or .gguf file; repeat for each.",
    multiple=True,
    required=True,
    metavar="SOURCE",
)
@_options.model_option(
    "--tokenizer",
    "Tokenizer of all members: one of those, a tokenizer.json, or `auto`: the one with the least excess on --text.",
    required=True,
    metavar="TARGET|auto",
)
@_options.text_option(
    "Text that --tokenizer auto judges by (.txt, .jsonl, .parquet, .gz), a folder or a pattern; repeat for more.",
    required=False,
    field=False,
)
@click.option("--out", required=True, metavar="DIR", help="Folder for the members and ensemble.json.")
@option_flags(EnsembleOptions)
@click.option("--dry-run", is_flag=True, help="Print the plans and stop.")
@_options.json_flag
@_options.volume
def prepare(
    models: tuple[str, ...],
    tokenizer: str,
    texts: tuple[Path, ...],
    out: str,
    dry_run: bool,
    **values: Any,
) -> None:
    """Put models on one tokenizer, a folder per member.

    Members are made one after the other, and each appears whole or not at all. A member that has the vocabulary
    already keeps all its rows and gets the shared tokenizer files. Run the same command again to continue after a
    stop: finished members are compared by content and kept. SOURCE is never changed.
    """
    as_json, quiet = values["as_json"], values["quiet"]
    _options.set_volume(quiet, values["verbose"])
    options = read_options(EnsembleOptions, values, progress=not quiet)
    if tokenizer != "auto":
        _options.refuse_idle({"texts"}, "without --tokenizer auto, which is chosen by it")
    from tokswap.ensemble.prepare import plan_with
    from tokswap.storage.resolve import output_path
    from tokswap.storage.texts import read_texts

    read = partial(read_texts, texts, options.field)
    tried, options = _tokenizers(models, tokenizer, read, output_path(out), options, dry_run)
    jobs = [plan_with(models, one, out, options) for one in tried]
    if dry_run:
        _show_plans(jobs, as_json, several=tokenizer == "auto")
        return
    job = jobs[0]
    if not quiet:
        click.echo("\n".join([*(_tried(options.choice) if options.choice else []), *_plan(job), ""]), err=True)

    def done(name: str, seconds: float) -> None:
        if not quiet:
            click.echo(f"made {name} in {duration(seconds)}", err=True)

    click.get_current_context().meta["tokswap.interrupted"] = "finished members stay; run the same command to continue"
    result = job.run(done)
    if as_json:
        _output.document(result.as_dict())
    else:
        click.echo(out if quiet else "\n".join(_result(job, result)))


def _tokenizers(
    models: tuple[str, ...],
    tokenizer: str,
    read: Callable[[], dict[str, str]],
    out: Path,
    options: EnsembleOptions,
    dry_run: bool,
) -> tuple[list[str], EnsembleOptions]:
    """The tokenizers to plan with, and the options with how one was chosen."""
    if tokenizer != "auto":
        return [tokenizer], options
    from tokswap.ensemble.choose import candidates, choose_tokenizer
    from tokswap.ensemble.members import read_weights

    read_weights(options.weights, len(models))
    if dry_run:
        return candidates(models), options
    choice = choose_tokenizer(models, read(), out, options.of_members, force=options.force)
    return [choice["tokenizer"]], dataclasses.replace(options, choice=choice)


def _show_plans(jobs: Sequence[EnsembleJob], as_json: bool, *, several: bool) -> None:
    if as_json:
        documents = [_document(job) for job in jobs]
        _output.document({"plans": documents} if several else documents[0])
    else:
        click.echo("\n\n".join("\n".join(_plan(job)) for job in jobs))


def _document(job: EnsembleJob) -> dict[str, Any]:
    plans = {member.name: member.job.plan.as_dict() for member in job.jobs}
    return {"ensemble": job.ensemble.as_dict(), "plans": plans}


def _plan(job: EnsembleJob) -> list[str]:
    """The members, and the plan of each that is still to be made."""
    ids = len(job.jobs[0].job.task.target.vocabulary)
    tokenizer = f"the tokenizer of {job.ensemble.tokenizer} ({ids:,} ids)"
    lines = [f"ensemble: {job.ensemble.folder}, {len(job.jobs)} members with {tokenizer}", ""]
    rows = [("member", "weight", "new rows", "size", "")]
    for member, own in zip(job.ensemble.members, job.jobs, strict=True):
        what = "to be made" if member.name in job.ensemble.unfinished else "exists, unchanged"
        made = f"{member.made or 0:,}" if own.changes else "none: it has this vocabulary"
        rows.append((member.name, f"{member.weight:.3g}", made, size(own.job.plan.sizes.bytes_after), what))
    lines += _output.columns(rows, right=(1,))
    for own in job.jobs:
        if own.name in job.ensemble.unfinished:
            lines += ["", *(_plan_text.plan_lines(own.job.plan) if own.changes else _kept(own))]
    return lines


def _kept(member: MemberJob) -> list[str]:
    """The plan of a member that has the vocabulary already."""
    return [
        f"copy: {member.model} -> {member.job.plan.names.out}",
        "",
        "  every row is copied to the same id; tokenizer files and ids of eos become those of the ensemble",
        *(f"  note: {note}" for note in member.job.plan.notes),
    ]


def _tried(choice: Mapping[str, Any]) -> list[str]:
    """What each candidate tokenizer costs."""
    tried = choice["tried"]
    names = list(tried[0]["excess"])
    rows = [["tokenizer of", *names, "sum", ""]]
    for one in tried:
        cells = [f"{one['excess'][name]:+.3f} ({count_of(one['made'][name], 'row')})" for name in names]
        rows.append([one["tokenizer"], *cells, f"{one['total']:+.3f}", "chosen" * (one is tried[0])])
    title = f"excess of the members with each tokenizer, bits per byte on {', '.join(choice['texts'])}:"
    return [title, *_output.columns(rows, right=tuple(range(1, len(names) + 2))), ""]


def _result(job: EnsembleJob, result: Ensemble) -> list[str]:
    made = len(job.ensemble.unfinished)
    kept = len(job.jobs) - made
    said = [f"{made} made" if made else "", f"{kept} kept" if kept else ""]
    lines = [f"wrote {result.folder}: {len(job.jobs)} members, {', '.join(filter(None, said))}"]
    return [*lines, "", _output.next_command("ensemble", "check", str(result.folder))]


@ensemble.command(
    epilog="""
\b
Examples:
  tokswap ensemble check ./ab
"""
)
@click.argument("folder", metavar="DIR")
@option_flags(DeviceOptions)
@option_flags(TrustOptions, help={"trust_remote_code": _options.RUN_CODE})
@_options.json_flag
@_options.volume
def check(folder: str, device: str, trust_remote_code: bool, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Test whether the members can be averaged.

    Compares their ids, sizes, ends of text, tokenization, chat templates and outputs. Exits with 1 where a check
    fails. All members are loaded.
    """
    _options.set_volume(quiet, verbose)
    from tokswap.ensemble.check import check_ensemble

    _output.checks(check_ensemble(folder, device=device, trust_remote_code=trust_remote_code), as_json, quiet)


ensemble.add_command(_mix.generate)
ensemble.add_command(_mix.evaluate)
