"""tokswap trim."""

from __future__ import annotations

from typing import Any

import click

from tokswap.cli import _adapter, _options, _trim_text
from tokswap.cli._flags import option_flags, read_options
from tokswap.cli._run import carry_out, run_flags
from tokswap.trim.options import TrimOptions


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
    "--model", "Model to trim: folder, hub id, alias or .gguf file.", required=True, metavar="SOURCE"
)
@option_flags(TrimOptions)
@run_flags("Count, print the plan and stop.")
def trim(model: str, **values: Any) -> None:
    """Keep the tokens of a language or a domain, and drop the rest.

    Text whose tokens are all kept is tokenized as before, and the model computes the same from it. Merge dependencies
    of kept tokens are kept too.
    """
    from tokswap.trim.adapters import is_adapter

    if is_adapter(model):
        _adapter.follow(model, values)
        return

    def plan(progress: bool) -> Any:
        from tokswap.trim.plan import plan_with

        return plan_with(model, read_options(TrimOptions, values, progress=progress))

    carry_out(plan, "trim", values, lines=(_trim_text.plan_lines, _trim_text.report_lines))
