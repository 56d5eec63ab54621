"""tokswap extend."""

from __future__ import annotations

from typing import Any

import click

from tokswap.cli import _adapter, _extend_text, _options
from tokswap.cli._flags import option_flags, read_options
from tokswap.cli._run import carry_out, run_flags
from tokswap.extend.options import ExtendOptions


@click.command(
    epilog="""
\b
Examples:
  # the 2,000 tokens that save most on your text: see which, and what they save
  tokswap extend --model ./my-model --corpus ./texts --add 2000 --dry-run
\b
  # a list of terms, one a line; then train the result on your text
  tokswap extend --model ./my-model --tokens terms.txt --heal german.txt --out ./my-model-terms
\b
  # name what a new token is made of
  tokswap extend --model ./my-model --tokens terms.txt --map-token 'Blutdruck=blood+pressure'
\b
  # the same number of tokens as before: those that the text uses least go
  tokswap extend --model ./my-model --corpus german.txt --add 1000 --replace
\b
  # a LoRA adapter of the model that was extended
  tokswap extend --model ./my-adapter --like ./my-model-terms --out ./my-adapter-terms
"""
)
@_options.model_option(
    "--model", "Model to extend: folder, hub id, alias or .gguf file.", required=True, metavar="SOURCE"
)
@option_flags(ExtendOptions)
@run_flags("Read the texts, print the plan with the new tokens, and stop.")
def extend(model: str, **values: Any) -> None:
    """Add terms of a list, or the tokens that save most on a text.

    Old tokens keep their ids and rows, bit for bit (unless --heal trains them), and a text without a new token keeps
    its tokenization. New tokens come out of the tokenizer's own merges, scores or pieces, which `add_tokens` bypasses.
    """
    from tokswap.trim.adapters import is_adapter

    if is_adapter(model):
        _adapter.follow(model, values)
        return

    def plan(progress: bool) -> Any:
        from tokswap.extend.plan import plan_with

        return plan_with(model, read_options(ExtendOptions, values, progress=progress))

    carry_out(plan, "extend", values, lines=(_extend_text.plan_lines, _extend_text.report_lines))
