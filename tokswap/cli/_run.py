"""How a command that transplants goes on once its plan is made: show it, carry it out, and say what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tokswap.cli import _output

if TYPE_CHECKING:
    from tokswap.report import Report
    from tokswap.transplant import Transplant


def carry_out(job: Transplant, *, dry_run: bool, as_json: bool, quiet: bool) -> Report | None:
    """Print the plan and stop, or run it and print the report; returns the Report of a run."""
    if dry_run:
        _output.document({"plan": job.plan.as_dict()}) if as_json else click.echo("\n".join(_output.plan(job.plan)))
        return None
    if not quiet:
        click.echo("\n".join([*_output.plan(job.plan), ""]), err=True)
    report = job.run(progress=not quiet)
    if as_json:
        _output.document(report.summary())
    elif quiet:
        click.echo(job.plan.out)
    else:
        click.echo("\n".join(_output.report(report)))
    return report
