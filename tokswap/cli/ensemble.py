"""tokswap ensemble: prepare, check, generate, eval."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokswap.cli import _options, _output
from tokswap.wording import duration, size

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


def _mixing(command: Any) -> Any:
    """The options of the commands that mix."""
    for option in (
        click.option("--mix", type=click.Choice(["probabilities", "logits"]), default="probabilities", show_default=True,
                     help="The mean of the members' distributions, or of their logits."),
        click.option("--weights", metavar="W,W", help="One weight a member, in their order. [default: as prepared]"),
        click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32",
                     show_default=True, help="What members compute in."),
        click.option("--device", default="cpu", show_default=True, help="Where torch computes: cpu, cuda, mps, ..."),
    )[::-1]:  # fmt: skip
        command = option(command)
    return command


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
@click.option("--model", "models", multiple=True, required=True, metavar="SRC",
              help="A member: folder, hub id, alias or .gguf file; repeat it for each.")  # fmt: skip
@click.option("--tokenizer", required=True, metavar="TGT|auto",
              help="The tokenizer of all: one of those, a tokenizer.json, or auto for that of the member that costs least on --text.")  # fmt: skip
@click.option("--text", "texts", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
              help="What --tokenizer auto judges by; may be repeated.")  # fmt: skip
@click.option("--out", required=True, metavar="DIR", help="A folder for the members and ensemble.json.")
@click.option("--weights", metavar="W,W", help="What each member weighs, in their order. [default: all the same]")
@click.option("--donor", metavar="M", help="The model that owns the tokenizer. [default: TGT where it has weights]")
@click.option("--init", default="auto", show_default=True, metavar="METHOD",
              help="How new rows are made: see `tokswap transplant`.")  # fmt: skip
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the method; may be repeated.")
@click.option("--calibrate", multiple=True, metavar="TEXT", type=click.Path(dir_okay=False),
              help="Fit the new tables to this text, of the members whose vocabulary changes; may be repeated.")  # fmt: skip
@click.option("--bos", type=click.Choice(["auto", "keep"]), default="auto", show_default=True,
              help="Let texts begin with bos where a member needs it, or keep the tokenizer as it is.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="For methods that draw random numbers.")
@click.option("--device", default="cpu", show_default=True, help="Where torch computes: cpu, cuda, mps, ...")
@click.option("--memory", type=_options.Bytes(), default="256MB", show_default=True, metavar="SIZE",
              help="What a method may take for its work besides the tables; more is faster.")  # fmt: skip
@click.option("--link", is_flag=True, help="Hard-link weight files that do not change instead of copying them.")
@click.option("--dry-run", is_flag=True, help="Print the plans and stop.")
@click.option("--force", is_flag=True, help="Make members again that are there and are not what this request makes.")
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
        "init": init, "settings": _options.read_settings(settings), "calibrate": calibrate, "bos": bos, "seed": seed,
        "device": device, "memory": memory, "link": link, "trust_remote_code": trust_remote_code,
    }  # fmt: skip
    if donor:
        options["donor"] = donor
    from tokswap.ensemble.prepare import plan_ensemble

    tried = [tokenizer]
    choice: Mapping[str, Any] | None = None
    if tokenizer == "auto":
        from tokswap.ensemble.choose import candidates, choose_tokenizer
        from tokswap.ensemble.members import read_weights
        from tokswap.texts import read_texts

        read_weights(weights, len(models))
        tried = candidates(models)
        if not dry_run:
            choice = choose_tokenizer(
                models, read_texts(texts), Path(out), force=force, progress=not quiet, **options
            )  # fmt: skip
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

    try:
        result = plan.run(progress=not quiet, done=done)
    except KeyboardInterrupt:
        click.echo("\ninterrupted: finished members stay; run the same again to go on", err=True)
        raise SystemExit(130) from None
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
    lines = [f"ensemble: {plan.ensemble.folder}, {len(plan.jobs)} members with the tokenizer of {plan.ensemble.tokenizer} "
             f"({len(target.target.vocabulary):,} ids)", ""]  # fmt: skip
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
@click.option("--device", default="cpu", show_default=True, help="Where the members are loaded.")
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


@ensemble.command(
    epilog="""
\b
Examples:
  tokswap ensemble generate ./ab --prompt 'Once upon a time'
\b
  # the first member counts more, and tokens are drawn
  tokswap ensemble generate ./ab --prompt 'Once upon a time' --weights 0.7,0.3 --temperature 0.8 --seed 1
"""
)
@click.argument("folder", metavar="DIR")
@click.option("--prompt", required=True, help="The beginning of the text.")
@_mixing
@click.option("--tokens", type=click.IntRange(1), default=64, show_default=True, help="How far at most.")
@click.option("--sample", is_flag=True, help="Draw tokens at random instead of taking the likeliest.")
@click.option("--temperature", type=float, metavar="T", help="Draw at this temperature. [default: 1 with --sample]")
@click.option("--seed", type=int, default=0, show_default=True, help="For what is drawn.")
@_options.trust_flag
@_options.json_flag
@_options.volume
def generate(
    folder: str,
    prompt: str,
    mix: str,
    weights: str | None,
    dtype: str,
    device: str,
    tokens: int,
    sample: bool,
    temperature: float | None,
    seed: int,
    trust_remote_code: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Go on from a prompt, each token predicted by all members together. The text is printed as it comes."""
    _options.set_volume(quiet, verbose)
    from tokswap.ensemble.generate import continue_text
    from tokswap.ensemble.mix import load_ensemble

    model, tokenizer = load_ensemble(
        folder, weights=weights, mix=mix, dtype=dtype, device=device, trust_remote_code=trust_remote_code
    )

    def write(text: str) -> None:
        if not as_json:
            click.echo(text, nl=False)
            sys.stdout.flush()

    found = continue_text(
        model, tokenizer, prompt, tokens=tokens, temperature=1.0 if sample and temperature is None else temperature,
        seed=seed, write=write,
    )  # fmt: skip
    if as_json:
        _output.document(
            {"prompt": prompt, "text": found.text, "tokens": found.tokens, "seconds": found.seconds, "mix": mix,
             "weights": list(model.weights)}
        )  # fmt: skip
        return
    click.echo()
    if not quiet:
        speed = f"{found.tokens} tokens in {found.seconds:.1f} s, {found.tokens / found.seconds:.1f} a second"
        click.echo(f"({speed})", err=True)


@ensemble.command(
    name="eval",
    epilog="""
\b
Examples:
  # each member and the mix, and the models that they were made from, with their own tokenizers
  tokswap ensemble eval ./ab --text notes.txt --sources
""",
)
@click.argument("folder", metavar="DIR")
@click.option("--text", "texts", multiple=True, required=True, type=click.Path(path_type=Path), metavar="FILE",
              help="A plain text in UTF-8; may be repeated.")  # fmt: skip
@_mixing
@click.option("--sources", is_flag=True, help="Judge the models that the members were made from too.")
@click.option("--window", type=int, default=512, show_default=True, metavar="N", help="Tokens that are read at once.")
@click.option("--overlap", type=int, default=128, show_default=True, metavar="N",
              help="Tokens of context that windows share.")  # fmt: skip
@click.option("--prompt", "prompts", multiple=True, help="Let all go on from this; may be repeated. [default: five]")
@click.option("--tokens", type=click.IntRange(0), default=24, show_default=True, help="How far; 0 for no samples.")
@click.option("--seed", type=int, default=0, show_default=True, help="For the draws behind the intervals.")
@_options.trust_flag
@_options.json_flag
@_options.volume
def evaluate(
    folder: str,
    texts: tuple[Path, ...],
    mix: str,
    weights: str | None,
    dtype: str,
    device: str,
    sources: bool,
    window: int,
    overlap: int,
    prompts: tuple[str, ...],
    tokens: int,
    seed: int,
    trust_remote_code: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Judge each member and the mix by the bits per byte that they need for texts, on the same bytes."""
    _options.set_volume(quiet, verbose)
    from tokswap.cli.eval import samples, summary
    from tokswap.ensemble.score import evaluate_ensemble
    from tokswap.probes import PROMPTS
    from tokswap.texts import read_texts

    result = evaluate_ensemble(
        folder, read_texts(texts), weights=weights, mix=mix, sources=sources, dtype=dtype, device=device, window=window,
        overlap=overlap, prompts=prompts or PROMPTS, tokens=tokens, seed=seed, trust_remote_code=trust_remote_code,
        progress=not quiet,
    )  # fmt: skip
    if as_json:
        _output.document(result.as_dict())
        return
    shares = result.settings["weights"]
    assert isinstance(shares, dict)
    said = " + ".join(f"{weight:.3g} {name}" for name, weight in shares.items())
    click.echo(
        "\n".join([f"the mix: mean of {mix}, {said}", "", *summary(result), *([] if quiet else samples(result))])
    )
