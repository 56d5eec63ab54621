"""tokswap verify."""

from __future__ import annotations

import click

from tokswap.cli import _complete, _options, _output


@click.command(
    epilog="""
\b
Examples:
  tokswap verify ./mine-with-theirs
  tokswap verify ./mine-with-theirs --against ./my-model
\b
  # would vLLM, llama.cpp, transformers and mlx-lm take it as a draft?
  tokswap verify ./draft --draft-for ./big-model
"""
)
@click.argument("folder", shell_complete=_complete.models, metavar="DIR")
@click.option(
    "--against",
    shell_complete=_complete.models,
    metavar="SRC",
    help="The model it was made from: compares every copied row and tensor.",
)
@click.option(
    "--draft-for",
    shell_complete=_complete.models,
    metavar="BIG",
    help="The model to draft for: says for each engine whether it would take DIR; its tokenizer and configs are enough.",
)
@_options.device_flag("Where the model is loaded.")
@_options.trust_flag
@_options.json_flag
@_options.volume
def verify(
    folder: str,
    against: str | None,
    draft_for: str | None,
    device: str,
    trust_remote_code: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Test a checkpoint: files, tokenizer, rows, and the model as transformers loads it.

    Exits with 1 where a check fails, or where an engine would refuse the draft. The whole model is loaded.
    """
    _options.set_volume(quiet, verbose)
    from tokswap.draft.engines import draft_verdicts
    from tokswap.evaluation.verify import verify_checkpoint as run
    from tokswap.storage.resolve import resolve_model, resolve_tokenizer

    path = resolve_model(folder)
    target = resolve_tokenizer(draft_for) if draft_for else None
    verdicts = draft_verdicts(path, target, trust_remote_code=trust_remote_code) if target else []
    checks = run(
        path,
        against=resolve_model(against) if against else None,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    _output.checks(checks, as_json, quiet, verdicts)
