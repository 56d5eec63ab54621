"""An adapter in place of a model: it follows the trim or the extension of its model."""

from __future__ import annotations

from typing import Any

import click

from tokswap.cli import _options, _output
from tokswap.cli._output import columns, shape_text
from tokswap.errors import count_of

_READ = {"like", "out", "force", "dry_run", "as_json", "quiet", "verbose"}
"""What an adapter is told besides its own name; all else is about the vocabulary, which --like has changed already."""


def follow(folder: str, values: dict[str, Any]) -> None:
    """Let an adapter follow the model that --like names, and print which tensors have changed."""
    from tokswap.trim.adapters import remap_adapter

    _options.set_volume(values["quiet"], values["verbose"])
    if values["like"] is None:
        raise click.UsageError("an adapter needs --like: the trimmed or extended model that it is to follow")
    _options.refuse_idle(values.keys() - _READ, "on an adapter, which follows the model of --like")
    done = remap_adapter(folder, values["like"], values["out"], force=values["force"], dry_run=values["dry_run"])
    if values["as_json"]:
        _output.document(done)
    else:
        click.echo(done["out"] if values["quiet"] else "\n".join(_lines(done)))


def _lines(done: dict[str, Any]) -> list[str]:
    rows = [
        (name, f"{shape_text(before)} -> {shape_text(after)}") for name, (before, after) in done["remapped"].items()
    ]
    return [
        f"{done['out']}: {len(rows)} of {count_of(done['tensors'], 'tensor')} follow the vocabulary",
        *columns(rows),
    ]
