"""tokswap tokenizer: train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tokswap.cli import _complete, _options, _output
from tokswap.cli._flags import option_flags, read_options
from tokswap.cli._groups import Group
from tokswap.train.options import TrainOptions

if TYPE_CHECKING:
    from tokswap.train.measure import Measured
    from tokswap.train.plan import TrainJob

_NAMED = 5
_SHOWN = 40


@click.group(
    cls=Group,
    epilog="""
\b
Examples:
  tokswap tokenizer train --corpus texts.txt --size 32000 --like ./my-model --out ./my-tokenizer
  tokswap transplant --model ./my-model --tokenizer ./my-tokenizer --out ./my-model-retokenized
""",
)
def tokenizer() -> None:
    """Train tokenizers on your own text."""


@tokenizer.command(
    epilog="""
\b
Examples:
  # which size? Train several, print a table and write nothing
  tokswap tokenizer train --corpus ./texts --like ./my-model --size-sweep 8000,16000,32000 --dry-run
\b
  # a vocabulary for your text, with the special tokens and the chat template of your model
  tokswap tokenizer train --corpus ./texts --like ./my-model --size 32000 --out ./my-tokenizer
\b
  # tokens that cross spaces: a fifth of the ids are superwords
  tokswap tokenizer train --corpus ./texts --like ./my-model --size 32000 --superwords --out ./superwords
\b
  # executables and other bytes
  tokswap tokenizer train --corpus '/usr/lib/*.so' --size 8192 --binary --out ./binary
"""
)
@click.option(
    "--corpus",
    "corpora",
    multiple=True,
    required=True,
    metavar="FILE",
    shell_complete=_complete.files,
    help="Text to train on: .txt, .jsonl, .parquet, .gz, a folder or a pattern; repeat for more.",
)
@option_flags(TrainOptions)
@click.option("--dry-run", is_flag=True, help="Train, print the figures and write nothing.")
@_options.json_flag
@_options.volume
def train(corpora: tuple[str, ...], dry_run: bool, **values: Any) -> None:
    """Train a tokenizer on a corpus.

    With --like, the result has M's family, normalizer, pre-tokenizer, special tokens, roles and chat template, and a
    vocabulary of your text. `tokswap transplant --tokenizer DIR` puts it on a model.
    """
    _options.set_volume(values["quiet"], values["verbose"])
    options = read_options(TrainOptions, values, progress=not values["quiet"])
    if not dry_run:
        options.check_result()
    from tokswap.train.plan import plan_with

    job = plan_with(corpora, options)
    if not dry_run:
        job.run()
    if values["as_json"]:
        _output.document(job.as_dict())
    else:
        click.echo(str(job.out) if values["quiet"] and not dry_run else "\n".join(_lines(job, dry_run)))


def _lines(job: TrainJob, dry_run: bool) -> list[str]:
    """Return the table of sizes, the longest and dead tokens, and what was written."""
    rows = [("ids", "tokens per byte", "Renyi efficiency", "across spaces", "dead")]
    rows += [
        (
            f"{one.ids:,}",
            f"{one.tokens_per_byte:.4f}",
            f"{one.renyi:.4f}",
            f"{100 * one.crossing:.1f} %",
            f"{one.dead:,}",
        )
        for one in job.figures
    ]
    lines = [*_output.columns(rows, right=(0, 1, 2, 3, 4)), ""]
    for one in job.figures:
        lines += _named(one)
    lines += _output.note_lines(job.notes)
    if dry_run or job.out is None:
        return [*lines, "", "nothing was written"]
    next_step = _output.next_command("transplant", "--model", "...", "--tokenizer", str(job.out))
    return [*lines, "", f"wrote {job.out}: {job.options.size:,} ids", "", next_step]


def _named(one: Measured) -> list[str]:
    """Return the lines that name the longest tokens of one size, and some dead ones."""
    kinds = (("longest", one.longest), ("dead", one.dead_named))
    return [f"  {one.ids:,}: {kind} {', '.join(map(_short, named[:_NAMED]))}" for kind, named in kinds if named]


def _short(token: str) -> str:
    return token if len(token) <= _SHOWN else f"{token[: _SHOWN // 2]}...{token[-_SHOWN // 2 :]}"
