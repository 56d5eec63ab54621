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
    failed = [check for check in checks if not check.ok]
    if as_json:
        _output.document(
            {"ok": not failed, "checks": [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in checks]}
        )
    else:
        shown = failed if quiet else checks
        lines = _output.columns([("ok" if check.ok else "FAIL", check.name, check.detail) for check in shown])
        click.echo("\n".join([*lines, f"{len(checks) - len(failed)} of {len(checks)} checks hold"]))
    if failed:
        raise SystemExit(1)
