"""tokswap trim."""

from __future__ import annotations

import click

from tokswap.cli import _complete, _options, _output, _page
from tokswap.cli._run import carry_out


@click.command(
    epilog="""
\b
Examples:
  # German, from lists of frequent words: see what it would save
  tokswap trim --model gemma --lang de --dry-run
\b
  # exactly the tokens of your text (.txt, .jsonl, .parquet, .gz; a folder; a pattern)
  tokswap trim --model ./my-model --corpus ./texts --out ./my-model-small
\b
  # two corpora, each with a minimum of its own, and a size for the result
  tokswap trim --model ./my-model --corpus de.txt=5 --corpus 'en/*.jsonl=2' --target-size 32000
\b
  # the tokens that another trim has kept, for a draft model or a LoRA adapter of the trimmed model
  tokswap trim --model ./my-adapter --like ./my-model-small --out ./my-adapter-small
"""
)
@_options.model_option(
    "--model", "The model to trim: folder, hub id, alias or .gguf file.", required=True, metavar="SRC"
)
@click.option(
    "--corpus",
    "corpora",
    shell_complete=_complete.files,
    multiple=True,
    metavar="FILE[=N]",
    help="Keep what this text uses (N times); may be repeated.",
)
@click.option("--lang", "languages", metavar="CODES", help="Keep what these languages use, by word lists: de,en.")
@click.option(
    "--words",
    shell_complete=_complete.files,
    multiple=True,
    metavar="FILE",
    help="Keep what these words use: one a line; may be repeated.",
)
@click.option("--keep-script", "scripts", multiple=True, metavar="NAME", help="Keep a script: Latin; may be repeated.")
@click.option("--keep-token", "keep_tokens", multiple=True, metavar="T", help="Keep this token; may be repeated.")
@click.option(
    "--drop-token", "drop_tokens", multiple=True, metavar="T", help="Drop this control token; may be repeated."
)
@_options.model_option(
    "--like", "Keep exactly the tokens of a trimmed model; SRC may be an adapter then.", metavar="DIR"
)
@click.option("--target-size", type=int, metavar="N", help="Rows of the result at most, parts of tokens included.")
@click.option(
    "--min-count", type=int, default=1, show_default=True, metavar="N", help="Keep tokens that occur so often."
)
@click.option("--coverage", type=float, metavar="SHARE", help="Keep the tokens that make up this share of each corpus.")
@click.option(
    "--field", default="text", show_default=True, metavar="NAME", help="Where JSON lines and parquet have their text."
)
@click.option(
    "--held-out",
    shell_complete=_complete.files,
    multiple=True,
    metavar="FILE",
    help="Text to measure the result on; may be repeated.",
)
@click.option("--out", metavar="DIR", help="The result. [default: SRC-trimmed in this folder]")
@click.option("--pad-to-multiple", type=int, metavar="N", help="Round the rows up to a multiple of N.")
@click.option(
    "--check",
    type=click.Choice(["auto", "full", "tokens"]),
    default="auto",
    show_default=True,
    help="Compare the outputs of both models after writing: where there is memory, always, or never.",
)
@_options.backend_flag
@_options.device_flag()
@_options.writing_flags(dry_run="Count, print the plan and stop.")
@_options.trust_flag
@_page.flag
@_options.json_flag
@_options.volume
def trim(
    model: str,
    languages: str | None,
    dry_run: bool,
    page: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **options: object,
) -> None:
    """Keep the tokens of a language or a domain, exactly, and drop the rest of the vocabulary.

    Text whose tokens are all kept is cut into the same tokens as before, and the model computes the same from them. What
    kept tokens are made from is kept too.
    """
    _options.set_volume(quiet, verbose)
    page_path = _page.check(page, dry_run=dry_run)
    from tokswap.trim.adapters import is_adapter, remap_adapter
    from tokswap.trim.plan import plan_trim

    if is_adapter(model):
        if options["like"] is None:
            raise click.UsageError("an adapter is trimmed with --like, by what its model was trimmed to")
        if page is not None:
            raise click.UsageError("--report is for models: the trim of an adapter measures nothing")
        done = remap_adapter(model, str(options["like"]), options["out"], force=bool(options["force"]), dry_run=dry_run)
        _output.document(done) if as_json else click.echo("\n".join(_output.adapter(done)))
        return
    job = plan_trim(model, languages=_options.read_codes(languages), progress=not quiet, **options)  # type: ignore[arg-type]
    report = carry_out(
        job, dry_run=dry_run, as_json=as_json, quiet=quiet, plan=_output.trim_plan, report=_output.trim_report
    )
    if report is None:
        return
    _page.write(page_path, "trim", report.as_dict(), quiet=quiet)
    if report.checks["failed"]:
        raise SystemExit(1)
