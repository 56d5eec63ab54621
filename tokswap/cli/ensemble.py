"""tokswap ensemble: prepare, check, generate, eval."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokswap.cli import _mix, _options, _output
from tokswap.report.wording import duration, size

if TYPE_CHECKING:
    from tokswap.ensemble.members import Ensemble
    from tokswap.ensemble.prepare import MemberJob, Preparation


@click.group(
    epilog="""
\b
Examples:
  tokswap ensemble prepare --model ./a --model ./b --tokenizer ./b --out ./ab
  tokswap ensemble check ./ab
  tokswap ensemble generate ./ab --prompt 'The ferry leaves at nine, and'
  tokswap ensemble eval ./ab --text notes.txt --sources
"""
)
def ensemble() -> None:
    """Ensembles: put several models on one vocabulary, and average what they predict.

    Averages need members that mean the same by every id and cut every text alike. `prepare` makes such members, `check`
    proves that they are, `generate` and `eval` mix them. Prepared members of one architecture can be merged too.
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
    "A member: folder, hub id, alias or .gguf file; repeat it for each.",
    multiple=True,
    required=True,
    metavar="SRC",
)
@_options.model_option(
    "--tokenizer",
    "The tokenizer of all: one of those, a tokenizer.json, or auto for that of the member that costs least on --text.",
    required=True,
    metavar="TGT|auto",
)
@_options.text_option("What --tokenizer auto judges by; may be repeated.", required=False)
@click.option("--out", required=True, metavar="DIR", help="A folder for the members and ensemble.json.")
@click.option("--weights", metavar="W,W", help="What each member weighs, in their order. [default: all the same]")
@_options.model_option("--donor", "The model that owns the tokenizer. [default: TGT where it has weights]", metavar="M")
@_options.method_flags
@_options.calibrate_flag(", of the members whose vocabulary changes,")
@click.option(
    "--bos",
    type=click.Choice(["auto", "keep"]),
    default="auto",
    show_default=True,
    help="Let texts begin with bos where a member needs it, or keep the tokenizer as it is.",
)
@_options.making_flags
@_options.writing_flags(
    dry_run="Print the plans and stop.",
    force="Make members again that are there and are not what this request makes.",
)
@_options.trust_flag
@_options.json_flag
@_options.volume
def prepare(
    models: tuple[str, ...],
    tokenizer: str,
    texts: tuple[Path, ...],
    out: str,
    weights: str | None,
    donor: str | None,
    init: str,
    settings: tuple[str, ...],
    calibrate: tuple[str, ...],
    bos: str,
    seed: int,
    device: str,
    memory: int,
    backend: str,
    link: bool,
    dry_run: bool,
    force: bool,
    trust_remote_code: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Put models on one tokenizer, a folder a member, with an ensemble.json that lists them.

    Members are made one after the other, and each appears whole or not at all. One that has the vocabulary already keeps all its
    rows and gets the shared tokenizer files. Run the same again to go on after a stop: what is finished is compared by
    content and kept. SRC is never changed.
    """
    _options.set_volume(quiet, verbose)
    options: dict[str, Any] = {
        "init": init,
        "settings": _options.read_settings(settings),
        "calibrate": calibrate,
        "bos": bos,
        "seed": seed,
        "device": device,
        "memory": memory,
        "backend": backend,
        "link": link,
        "trust_remote_code": trust_remote_code,
    }
    if donor:
        options["donor"] = donor
    from tokswap.ensemble.prepare import plan_ensemble

    tried = [tokenizer]
    choice: Mapping[str, Any] | None = None
    if tokenizer == "auto":
        from tokswap.ensemble.choose import candidates, choose_tokenizer
        from tokswap.ensemble.members import read_weights
        from tokswap.storage.texts import read_texts

        read_weights(weights, len(models))
        tried = candidates(models)
        if not dry_run:
            choice = choose_tokenizer(models, read_texts(texts), Path(out), force=force, progress=not quiet, **options)
            tried = [choice["tokenizer"]]
    plans = [plan_ensemble(models, one, out, weights=weights, choice=choice, force=force, **options) for one in tried]
    if dry_run:
        if as_json:
            documents = [_document(plan) for plan in plans]
            _output.document({"plans": documents} if tokenizer == "auto" else documents[0])
        else:
            click.echo("\n\n".join("\n".join(_plan(plan)) for plan in plans))
        return
    plan = plans[0]
    if not quiet:
        click.echo("\n".join([*(_tried(choice) if choice else []), *_plan(plan), ""]), err=True)

    def done(name: str, seconds: float) -> None:
        if not quiet:
            click.echo(f"made {name} in {duration(seconds)}", err=True)

    click.get_current_context().meta["tokswap.interrupted"] = "finished members stay; run the same again to go on"
    result = plan.run(progress=not quiet, done=done)
    if as_json:
        _output.document(result.as_dict())
    elif quiet:
        click.echo(out)
    else:
        click.echo("\n".join(_result(plan, result)))


def _document(plan: Preparation) -> dict[str, Any]:
    plans = {job.name: job.job.plan.as_dict() for job in plan.jobs}
    return {"ensemble": plan.ensemble.as_dict(), "plans": plans}


def _plan(plan: Preparation) -> list[str]:
    """The members, and the plan of each that is still to be made."""
    target = plan.jobs[0].job
    lines = [
        f"ensemble: {plan.ensemble.folder}, {len(plan.jobs)} members with the tokenizer of {plan.ensemble.tokenizer} "
        f"({len(target.target.vocabulary):,} ids)",
        "",
    ]
    head = ("member", "weight", "rows made", "size", "")
    rows = [head]
    for member, job in zip(plan.ensemble.members, plan.jobs, strict=True):
        what = "to be made" if member.name in plan.ensemble.unfinished else "there already, unchanged"
        made = f"{member.made or 0:,}" if job.moved else "none: it has this vocabulary"
        rows.append((member.name, f"{member.weight:.3g}", made, size(job.job.plan.bytes_after), what))
    lines += _output.columns(rows, right=(1,))
    for job in plan.jobs:
        if job.name in plan.ensemble.unfinished:
            lines += ["", *(_output.plan(job.job.plan) if job.moved else _kept(job))]
    return lines


def _kept(job: MemberJob) -> list[str]:
    """The plan of a member that has the vocabulary already."""
    lines = [
        f"copy: {job.model} -> {job.job.plan.out}",
        "",
        "  every id keeps its own row; tokenizer files and ids of eos become those of the ensemble",
    ]
    return [*lines, *(f"  note: {note}" for note in job.job.plan.notes)]


def _tried(choice: Mapping[str, Any]) -> list[str]:
    """What each candidate tokenizer costs."""
    tried = choice["tried"]
    names = list(tried[0]["excess"])
    rows = [["tokenizer of", *names, "sum", ""]]
    for one in tried:
        cells = [f"{one['excess'][name]:+.3f} ({one['made'][name]:,} rows)" for name in names]
        rows.append([one["tokenizer"], *cells, f"{one['total']:+.3f}", "taken" * (one is tried[0])])
    title = f"what each tokenizer costs the members, bits per byte of {', '.join(choice['texts'])}:"
    return [title, *_output.columns(rows, right=tuple(range(1, len(names) + 2))), ""]


def _result(plan: Preparation, result: Ensemble) -> list[str]:
    made = len(plan.ensemble.unfinished)
    kept = len(plan.jobs) - made
    said = [f"{made} made" if made else "", f"{kept} there already" if kept else ""]
    lines = [f"wrote {result.folder}: {len(plan.jobs)} members, {', '.join(filter(None, said))}"]
    return [*lines, "", f"next: tokswap ensemble check {result.folder}"]


@ensemble.command(
    epilog="""
\b
Examples:
  tokswap ensemble check ./ab
"""
)
@click.argument("folder", metavar="DIR")
@_options.device_flag("Where the members are loaded.")
@_options.trust_flag
@_options.json_flag
@_options.volume
def check(folder: str, device: str, trust_remote_code: bool, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Test whether the members can be averaged: ids, sizes, ends of text, segmentation, chat template, outputs.

    Exits with 1 where a check fails. All members are loaded.
    """
    _options.set_volume(quiet, verbose)
    from tokswap.ensemble.check import check_ensemble

    _output.checks(check_ensemble(folder, device=device, trust_remote_code=trust_remote_code), as_json, quiet)


ensemble.add_command(_mix.generate)
ensemble.add_command(_mix.evaluate)
