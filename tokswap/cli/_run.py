"""How a command that writes a model goes on once its plan is made: show it, carry it out, and say what came of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from tokswap.cli import _output

if TYPE_CHECKING:
    from tokswap.report.record import Report
    from tokswap.transplant.plan import Transplant
    from tokswap.trim.plan import Trim


def carry_out(
    job: Transplant | Trim,
    *,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    plan: Callable[[Any], list[str]] = _output.plan,
    report: Callable[[Report], list[str]] = _output.report,
) -> Report | None:
    """Print the plan and stop, or run it and print the report; returns the Report of a run.

    plan, report: what says them in lines.
    """
    if dry_run:
        _output.document({"plan": job.plan.as_dict()}) if as_json else click.echo("\n".join(plan(job.plan)))
        return None
    if not quiet:
        click.echo("\n".join([*plan(job.plan), ""]), err=True)
    done = job.run(progress=not quiet)
    if as_json:
        _output.document(done.summary())
    elif quiet:
        click.echo(job.plan.out)
    else:
        click.echo("\n".join(report(done)))
    return done
