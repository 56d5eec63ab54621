"""What a command does once its plan is made: show it, carry it out, and say what came of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from tokswap.cli import _options, _output, _page, _plan_text
from tokswap.cli._options import Command

if TYPE_CHECKING:
    from tokswap.heal.run import HealJob
    from tokswap.transplant.run import TransplantJob
    from tokswap.trim.run import TrimJob


def run_flags(dry_run: str = "Print the plan and stop.", *, page: bool = True) -> Callable[[Command], Command]:
    """Add what all commands have that write a model: --dry-run, --report, --push-to-hub, --json, -q and -v."""
    push = click.option(
        "--push-to-hub", metavar="REPO", help="Upload the result to this repository of the Hugging Face Hub."
    )
    dry = click.option("--dry-run", is_flag=True, help=dry_run)
    flags = [dry, push, *([_page.flag] if page else []), _options.json_flag, _options.volume]
    return _options.together(*flags)


def carry_out(
    plan: Callable[[bool], TransplantJob | TrimJob | HealJob],
    command: str,
    values: dict[str, Any],
    *,
    lines: tuple[Callable[[Any], list[str]], Callable[[Any], list[str]]] = (
        _plan_text.plan_lines,
        _plan_text.report_lines,
    ),
) -> None:
    """Plan and run, as the flags say.

    Args:
        plan: Makes the job; told whether to show progress.
        command: Name of the report page.
        values: What Click has parsed: dry_run, page, push_to_hub, as_json, quiet and verbose among it.
        lines: What describes the plan and the report.
    """
    quiet, as_json, dry_run = values["quiet"], values["as_json"], values["dry_run"]
    _options.set_volume(quiet, values["verbose"])
    page = _page.check(values.get("page"), dry_run=dry_run)
    if dry_run and values["push_to_hub"]:
        raise click.UsageError("--push-to-hub uploads a finished result: leave out --dry-run")
    if values["push_to_hub"]:
        from tokswap.storage.hub import check_push

        check_push(values["push_to_hub"])
    job = plan(not quiet)
    if dry_run:
        _output.document({"plan": job.plan.as_dict()}) if as_json else click.echo("\n".join(lines[0](job.plan)))
        return
    if not quiet:
        click.echo("\n".join([*lines[0](job.plan), ""]), err=True)
    report: Any = job.run()
    if as_json:
        _output.document(report.summary())
    else:
        click.echo(report.path if quiet else "\n".join(lines[1](report)))
    _page.write(page, command, report.as_dict(), quiet=quiet)
    if values.get("gguf") and not quiet:
        click.echo(f"GGUF file: {values['gguf']}", err=True)
    if values["push_to_hub"]:
        click.echo(f"pushed to {report.push_to_hub(values['push_to_hub'])}", err=True)
