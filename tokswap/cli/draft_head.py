"""tokswap draft-head."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from tokswap.cli import _options, _output
from tokswap.cli._flags import option_flags, read_options
from tokswap.draft.options import DraftHeadOptions
from tokswap.errors import count_of

if TYPE_CHECKING:
    from tokswap.draft.head import DraftHeadJob

_CHOOSING = {item.name for item in dataclasses.fields(DraftHeadOptions)} - {"trust_remote_code"}
"""What says which tokens a head keeps, and where it is written."""


@click.command(
    "draft-head",
    epilog="""
\b
Examples:
  # what heads of several sizes cover, without writing anything
  tokswap draft-head --model ./eagle3 --target ./big-model --corpus answers.txt --held-out more.txt --dry-run
\b
  # the head that you have chosen
  tokswap draft-head --model ./eagle3 --target ./big-model --corpus answers.txt --size 32768 --out ./eagle3-32k
\b
  # do the maps of an existing head hold together?
  tokswap draft-head --model ./eagle3-32k --target ./big-model --check
""",
)
@_options.model_option(
    "--model", "EAGLE-3 head, or model whose lm_head is taken: folder, hub id or alias.", required=True, metavar="HEAD"
)
@_options.model_option(
    "--target", "Model to draft for; its tokenizer and configs are enough.", required=True, metavar="BIG"
)
@option_flags(DraftHeadOptions)
@click.option("--check", is_flag=True, help="Check the maps (d2t, t2d) of HEAD and stop.")
@click.option("--dry-run", is_flag=True, help="Print the coverage and stop.")
@_options.json_flag
@_options.volume
def draft_head(model: str, target: str, check: bool, dry_run: bool, **values: Any) -> None:
    """Reduce a draft head to the tokens that cover most of a corpus.

    The result has EAGLE-3's layout: lm_head of N rows, d2t, t2d and draft_vocab_size; hot_token_ids.pt is SGLang's
    token map (--speculative-token-map). A token without a row can never be proposed, so a head that was chosen by the
    wrong text makes drafting slower, never wrong.
    """
    _options.set_volume(values["quiet"], values["verbose"])
    if check:
        from tokswap.draft.head import check_draft_head

        _options.refuse_idle({*_CHOOSING, "dry_run"}, "with --check, which writes nothing")
        found = check_draft_head(model, target, trust_remote_code=values["trust_remote_code"])
        _output.checks(found, values["as_json"], values["quiet"])
        return
    from tokswap.draft.head import plan_with

    job = plan_with(model, target, read_options(DraftHeadOptions, values))
    if not dry_run:
        job.run()
    if values["as_json"]:
        _output.document(job.as_dict())
    else:
        click.echo(str(job.out) if values["quiet"] else "\n".join(_lines(job, dry_run)))


def _lines(job: DraftHeadJob, dry_run: bool) -> list[str]:
    """Return the table of coverage, and what was written."""
    sizes = list(next(iter(job.choice.coverage.values())))
    rows = [
        ("tokens", *job.choice.coverage),
        *((f"{n:,}", *(f"{100 * of[n]:.2f} %" for of in job.choice.coverage.values())) for n in sizes),
    ]
    done = "would write" if dry_run else "wrote"
    return [
        "share of the tokens of a text that a head has",
        *_output.columns(rows, right=tuple(range(len(rows[0])))),
        *_output.note_lines(job.notes),
        "",
        f"{done} {job.out}: {len(job.choice.ids):,} of {count_of(job.target_size, 'token')}",
    ]
