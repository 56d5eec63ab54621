"""tokswap heal."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import click

from tokswap.cli import _complete, _heal_text, _options
from tokswap.cli._flags import option_flags, read_options
from tokswap.cli._run import carry_out, run_flags
from tokswap.heal.options import HealOptions


@click.command(
    epilog="""
\b
Examples:
  # what it would take: steps, memory and time
  tokswap heal ./mine-with-theirs --text notes.txt --dry-run
\b
  # 100 kB of text in your languages; the teacher is the model that ./mine-with-theirs came from
  tokswap heal ./mine-with-theirs --text german.txt --text code.py --out ./healed
\b
  # no text at hand: the teacher writes it
  tokswap heal ./mine-with-theirs --self-text 100kB --out ./healed
\b
  # as much of a large text as ten minutes allow
  tokswap heal ./mine-with-theirs --text corpus.jsonl --minutes 10 --out ./healed
\b
  # another teacher, conversations in the mix, and the changes as a PEFT adapter
  tokswap heal ./draft --teacher ./big-model --text notes.txt --chat chats.jsonl --save adapter --out ./adapter
\b
  # on several devices: the processes share each step
  accelerate launch -m tokswap heal ./mine-with-theirs --text corpus.jsonl --device cuda --out ./healed
"""
)
@click.argument("model", shell_complete=_complete.models)
@_options.text_option(
    "Text to train on (.txt, .jsonl, .parquet, .gz), a folder or a pattern; repeat for more.",
    required=False,
    field=False,
)
@option_flags(HealOptions)
@run_flags()
def heal(model: str, texts: tuple[str, ...], **values: Any) -> None:
    """Train a changed model to predict text as its source model did.

    MODEL learns to predict what its source model (the teacher) does with its own tokenizer. Embeddings and a LoRA
    adapter of the body are trained; the result is a whole model with the changes merged. A part of the text is held
    out: a result that does not predict it better than MODEL is not written, and the exit status is 1. A run that was
    interrupted goes on where it was when it is started again.
    """

    if int(os.environ.get("RANK", "0")):  # one of several processes talks
        sys.stdout = sys.stderr = io.StringIO()
    left = "nothing is written; run the same command to go on from the last checkpoint"
    click.get_current_context().meta["tokswap.interrupted"] = left

    def plan(progress: bool) -> Any:
        from tokswap.heal.plan import plan_with

        return plan_with(model, texts, read_options(HealOptions, values, progress=progress))

    carry_out(plan, "heal", values, lines=(_heal_text.plan_lines, _heal_text.report_lines))
