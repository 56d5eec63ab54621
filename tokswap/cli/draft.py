"""tokswap draft."""

from __future__ import annotations

from typing import Any

import click

from tokswap.cli import _options
from tokswap.cli._flags import option_flags, read_options
from tokswap.cli._run import carry_out, run_flags
from tokswap.draft.options import DraftOptions


@click.command(
    epilog="""
\b
Examples:
  # see what would happen, without reading a weight
  tokswap draft --model smollm --target llama-8b --dry-run
\b
  # a draft, and whether inference engines would take it
  tokswap draft --model ./small-model --target ./big-model --out ./draft
  tokswap verify ./draft --draft-for ./big-model
\b
  # trained to predict what the big model does, on text of the kind that it will write, and on text that it writes
  tokswap draft --model ./small-model --target ./big-model --distill answers.txt --self-text 100kB --out ./draft
\b
  # a turn marker by hand
  tokswap draft --model ./small-model --target ./big-model --map-token '<|im_end|>=<end_of_turn>' --out ./draft
"""
)
@_options.model_option(
    "--model", "Small model to make a draft of: folder, hub id, alias or .gguf.", required=True, metavar="SMALL"
)
@_options.model_option(
    "--target", "Model to draft for; its tokenizer and configs are enough.", required=True, metavar="BIG"
)
@option_flags(DraftOptions)
@run_flags(page=False)
def draft(model: str, target: str, **values: Any) -> None:
    """Make a small model a draft of a big one.

    For speculative decoding. The result is SMALL with the vocabulary of BIG, id for id: tokenizer files, chat
    template, padded vocab_size, bos, eos and pad ids and generation config are BIG's. Inference engines refuse a draft
    that differs in these, or use it wrongly; `tokswap verify --draft-for` says which would take it.
    """

    def plan(progress: bool) -> Any:
        from tokswap.draft.plan import plan_with

        return plan_with(model, target, read_options(DraftOptions, values, progress=progress))

    carry_out(plan, "draft", values)
