"""tokswap verify."""

from __future__ import annotations

import click

from tokswap.cli import _complete, _options, _output
from tokswap.cli._flags import option_flags
from tokswap.options.groups import DeviceOptions, TrustOptions


@click.command(
    epilog="""
\b
Examples:
  tokswap verify ./mine-with-theirs
  tokswap verify ./mine-with-theirs --against ./my-model
  tokswap verify ./mine-with-theirs --against ./my-model --tokenizer ./their-model
\b
  # would vLLM, llama.cpp, transformers and mlx-lm take it as a draft?
  tokswap verify ./draft --draft-for ./big-model
"""
)
@click.argument("folder", shell_complete=_complete.models, metavar="DIR")
@_options.model_option(
    "--against",
    "Source model: compares every copied row and tensor, the roles and the configs with it.",
    metavar="SOURCE",
)
@_options.model_option(
    "--tokenizer",
    "Target tokenizer of a transplant: compares every id, role and text with it. "
    "[default: the one that tokswap.json names, if it is there]",
    metavar="TOK",
)
@_options.model_option(
    "--draft-for",
    "Model to draft for: says which inference engines would take DIR. Its tokenizer and configs are enough.",
    metavar="BIG",
)
@option_flags(DeviceOptions)
@option_flags(TrustOptions, help={"trust_remote_code": _options.RUN_CODE})
@_options.json_flag
@_options.volume
def verify(
    folder: str,
    against: str | None,
    tokenizer: str | None,
    draft_for: str | None,
    device: str,
    trust_remote_code: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Test a checkpoint as transformers loads it.

    That is its tokenizer, configs, rows and outputs, by itself or against the model that it came from. The exit status
    is 1 if a check fails, or if an inference engine would refuse the draft. The whole model is loaded.
    """
    _options.set_volume(quiet, verbose)
    from tokswap.draft.engines import draft_verdicts
    from tokswap.evaluation.verify import verify_checkpoint
    from tokswap.storage.resolve import resolve_model

    path = resolve_model(folder)
    verdicts = draft_verdicts(folder, draft_for, trust_remote_code=trust_remote_code) if draft_for else []
    checks = verify_checkpoint(
        path, against=against, tokenizer=tokenizer, device=device, trust_remote_code=trust_remote_code
    )
    _output.checks(checks, as_json, quiet, verdicts)
