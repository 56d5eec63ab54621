"""tokswap transplant."""

from __future__ import annotations

from typing import Any

import click

from tokswap.cli import _options
from tokswap.cli._flags import option_flags, read_options
from tokswap.cli._run import carry_out, run_flags
from tokswap.transplant.options import TransplantOptions


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
  # text in your languages improves the result; it takes minutes, and the plan says how many
  tokswap transplant --model A --tokenizer B --heal german.txt --heal code.txt
\b
  # one method for the input embeddings, a sum of two for lm_head
  tokswap transplant --model A --tokenizer B --untie --init kriging \\
      --init-output '0.6*kriging + 0.4*subword(weights=first)'
\b
  # a setting of a method, a chat marker by hand, rows padded for tensor cores
  tokswap transplant --model A --tokenizer B --init omp --set k=32 \\
      --map-token '<|im_end|>=<end_of_turn>' --pad-to-multiple 64
"""
)
@_options.model_option(
    "--model", "Model to change: folder, hub id, alias or .gguf file.", required=True, metavar="SOURCE"
)
@_options.model_option(
    "--tokenizer", "New tokenizer: one of those, or a tokenizer.json.", required=True, metavar="TARGET"
)
@option_flags(TransplantOptions)
@run_flags()
def transplant(model: str, tokenizer: str, **values: Any) -> None:
    """Put another model's tokenizer on a model.

    Rows of tokens that both vocabularies share are copied bit for bit (unless --heal trains them on a text); a
    method computes the others. The result is a checkpoint like SOURCE in everything but its vocabulary, with the
    tokenizer files and chat template of TARGET, a report (tokswap.json) and a model card. SOURCE is never changed,
    and a run that fails leaves nothing behind.
    """

    def plan(progress: bool) -> Any:
        from tokswap.transplant.plan import plan_with

        return plan_with(model, tokenizer, read_options(TransplantOptions, values, progress=progress))

    carry_out(plan, "transplant", values)
