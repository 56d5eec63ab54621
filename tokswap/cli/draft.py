"""tokswap draft."""

from __future__ import annotations

from typing import Any

import click

from tokswap.cli import _options
from tokswap.cli._run import carry_out


@click.command(
    epilog="""
\b
Examples:
  # what it would take, without reading a weight
  tokswap draft --model smollm --target llama-8b --dry-run
\b
  # a draft, and whether engines would take it
  tokswap draft --model ./small-model --target ./big-model --out ./draft
  tokswap verify ./draft --draft-for ./big-model
\b
  # fitted to text of the kind that the big model will write
  tokswap draft --model ./small-model --target ./big-model --calibrate answers.txt --out ./draft
\b
  # a turn marker by hand
  tokswap draft --model ./small-model --target ./big-model --map-token '<|im_end|>=<end_of_turn>' --out ./draft
"""
)
@_options.model_option(
    "--model", "The model to make a draft of: folder, hub id, alias or .gguf.", required=True, metavar="SMALL"
)
@_options.model_option(
    "--target", "The model to draft for; its tokenizer and configs are enough.", required=True, metavar="BIG"
)
@click.option("--out", metavar="DIR", help="The result. [default: SMALL-for-BIG in this folder]")
@_options.model_option(
    "--donor",
    "The model whose embeddings help to make new rows, or none. [default: BIG where its folder has weights]",
    metavar="M",
)
@_options.method_flags
@_options.output_method_flag
@click.option("--tie/--untie", default=None, help="Join or split input and output tables. [default: as SMALL has them]")
@click.option(
    "--map-token",
    "map_tokens",
    multiple=True,
    metavar="BIG=SMALL",
    help="Copy this token's row for that token of BIG, where roles and known chat markers do not do; may be repeated.",
)
@_options.calibrate_flag()
@_options.making_flags
@_options.writing_flags()
@_options.trust_flag
@_options.json_flag
@_options.volume
def draft(
    model: str,
    target: str,
    settings: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Make a small model a draft of a big one, for speculative decoding.

    The result is SMALL with the vocabulary of BIG, id for id: tokenizer files, chat template, padded vocab_size, bos, eos
    and pad ids and generation config are BIG's. Engines refuse a draft that differs in these, or use it wrongly; `tokswap
    verify --draft-for` says which would take it.
    """
    _options.set_volume(quiet, verbose)
    values = _options.read_settings(settings)
    from tokswap.draft.plan import plan_draft

    job = plan_draft(model, target, settings=values, **options)
    carry_out(job, dry_run=dry_run, as_json=as_json, quiet=quiet)
