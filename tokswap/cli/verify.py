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
"""
)
@click.argument("folder", shell_complete=_complete.models, metavar="DIR")
@click.option(
    "--against",
    shell_complete=_complete.models,
    metavar="SRC",
    help="The model it was made from: compares every copied row and tensor.",
)
@click.option("--device", default="cpu", show_default=True, help="Where the model is loaded.")
@_options.trust_flag
@_options.json_flag
@_options.volume
def verify(
    folder: str, against: str | None, device: str, trust_remote_code: bool, as_json: bool, quiet: bool, verbose: bool
) -> None:
    """Test a checkpoint: files, tokenizer, rows, and the model as transformers loads it.

    Exits with 1 where a check fails. The whole model is loaded.
    """
    _options.set_volume(quiet, verbose)
    from tokswap.sources import resolve_model
    from tokswap.verify import verify as run

    checks = run(
        resolve_model(folder),
        against=resolve_model(against) if against else None,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    _output.checks(checks, as_json, quiet)
