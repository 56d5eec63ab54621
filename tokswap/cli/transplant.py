"""tokswap transplant."""

from __future__ import annotations

import click

from tokswap.cli import _options, _page
from tokswap.cli._run import carry_out


@click.command(
    epilog="""
\b
Examples:
  # see what would happen, without reading a weight
  tokswap transplant --model llama --tokenizer mistral --dry-run
\b
  # your model with another model's tokenizer; the other model is the donor
  tokswap transplant --model ./my-model --tokenizer ./their-model --out ./mine-with-theirs
\b
  # a tokenizer without a model: use a method that needs no donor
  tokswap transplant --model ./my-model --tokenizer ./tokenizer.json --init subword
\b
  # text in your languages makes the result better; it costs minutes, and the plan says how many
  tokswap transplant --model A --tokenizer B --calibrate german.txt --calibrate code.txt
\b
  # methods by hand: one for the input table, a sum of two for the output head
  tokswap transplant --model A --tokenizer B --untie --init kriging \\
      --init-output '0.6*kriging + 0.4*subword(weights=first)'
\b
  # settings of a method, chat markers by hand, rows padded for tensor cores
  tokswap transplant --model A --tokenizer B --init omp --set k=32 \\
      --map-token '<|im_end|>=<end_of_turn>' --pad-to-multiple 64
"""
)
@_options.model_option(
    "--model", "The model to change: folder, hub id, alias or .gguf file.", required=True, metavar="SRC"
)
@_options.model_option(
    "--tokenizer", "Its new tokenizer: one of those, or a tokenizer.json.", required=True, metavar="TGT"
)
@_options.model_option(
    "--donor", "The model that owns the new tokenizer, or none. [default: TGT where it has weights]", metavar="M"
)
@click.option("--out", metavar="DIR", help="The result. [default: SRC-TGT in this folder]")
@_options.method_flags
@_options.output_method_flag
@_options.calibrate_flag()
@click.option(
    "--map-token",
    "map_tokens",
    multiple=True,
    metavar="TGT=SRC",
    help="Copy this source token's row for that target token; may be repeated.",
)
@click.option(
    "--vocab-size",
    default="match",
    show_default=True,
    metavar="match|tight|N",
    help="Rows of the tables: as many as TGT's model has, one a token, or N.",
)
@click.option("--pad-to-multiple", type=int, metavar="N", help="Round the rows up to a multiple of N.")
@click.option("--tie/--untie", default=None, help="Join or split input and output tables. [default: as SRC has them]")
@click.option(
    "--bos",
    type=click.Choice(["auto", "keep"]),
    default="auto",
    show_default=True,
    help="Let the tokenizer begin texts with bos where SRC needs it, or keep it as it is.",
)
@click.option(
    "--trim-corpus",
    "trim_corpora",
    multiple=True,
    metavar="FILE[=N]",
    help="First trim TGT's vocabulary to what this text uses; may be repeated. See `tokswap trim`.",
)
@click.option("--trim-lang", metavar="CODES", help="First trim TGT's vocabulary to these languages: de,en.")
@click.option("--trim-size", type=int, metavar="N", help="Rows that such a trim leaves at most.")
@_options.making_flags
@_options.writing_flags()
@_options.trust_flag
@_page.flag
@_options.json_flag
@_options.volume
def transplant(
    model: str,
    tokenizer: str,
    donor: str | None,
    out: str | None,
    init: str,
    settings: tuple[str, ...],
    output_init: str | None,
    calibrate: tuple[str, ...],
    map_tokens: tuple[str, ...],
    vocab_size: str,
    pad_to_multiple: int | None,
    tie: bool | None,
    bos: str,
    trim_corpora: tuple[str, ...],
    trim_lang: str | None,
    trim_size: int | None,
    seed: int,
    device: str,
    memory: int,
    backend: str,
    link: bool,
    dry_run: bool,
    force: bool,
    trust_remote_code: bool,
    page: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Put another model's tokenizer on a model.

    Rows of tokens that both vocabularies know are copied bit for bit (unless --calibrate fits them to a text); the
    others are made by a method. The result
    is a checkpoint like SRC in everything but its vocabulary, with the tokenizer files and chat template of TGT and a
    report (tokswap.json) beside the weights. SRC is never changed, and a run that fails leaves nothing behind.
    """
    _options.set_volume(quiet, verbose)
    values = _options.read_settings(settings)
    page_path = _page.check(page, dry_run=dry_run)
    from tokswap.transplant.plan import plan_transplant

    job = plan_transplant(
        model,
        tokenizer,
        donor=donor,
        out=out,
        init=init,
        settings=values,
        output_init=output_init,
        calibrate=calibrate,
        map_tokens=map_tokens,
        vocab_size=vocab_size,
        pad_to_multiple=pad_to_multiple,
        tie=tie,
        bos=bos,
        trim_corpora=trim_corpora,
        trim_languages=_options.read_codes(trim_lang),
        trim_size=trim_size,
        seed=seed,
        device=device,
        memory=memory,
        backend=backend,
        link=link,
        force=force,
        trust_remote_code=trust_remote_code,
    )
    report = carry_out(job, dry_run=dry_run, as_json=as_json, quiet=quiet)
    if report is not None:
        _page.write(page_path, "transplant", report.as_dict(), quiet=quiet)
