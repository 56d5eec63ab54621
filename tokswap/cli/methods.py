"""tokswap methods."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from tokswap.cli import _complete, _options, _output


@click.command(
    epilog="""
\b
Examples:
  tokswap methods
  tokswap methods omp
"""
)
@click.argument("name", shell_complete=_complete.methods, required=False, metavar="[NAME]")
@_options.json_flag
def methods(name: str | None, as_json: bool) -> None:
    """List the methods that make new rows, or show the settings of one."""
    from tokswap.init.registry import METHODS, method_class

    described = [_describe(key, method_class(key)) for key in ([name] if name else METHODS)]
    if as_json:
        _output.document(described[0] if name else described)
    elif name:
        method = described[0]
        lines = [f"{name}: {method['summary']}", "", method["description"], "", f"source: {method['source']}"]
        lines.append(f"needs: {method['needs']}")
        if method["settings"]:
            rows = [(s["name"], f"{s['default']}", s["help"]) for s in method["settings"]]
            lines += ["", "settings (--set name=value)", *_output.columns([("name", "default", ""), *rows])]
        click.echo("\n".join(lines))
    else:
        rows = [(m["name"], m["needs"], m["summary"]) for m in described]
        click.echo("\n".join(_output.columns([("name", "needs", ""), *rows])))


def _describe(name: str, cls: type[Any]) -> dict[str, Any]:
    from tokswap.init.registry import needs_of

    return {
        "name": name,
        "summary": cls.summary,
        "description": " ".join((cls.__doc__ or "").split()),
        "source": cls.source,
        "needs": needs_of(cls),
        "needs_donor": cls().needs_donor,
        "settings": [
            {"name": field.name, "default": field.default, **{k: v for k, v in field.metadata.items() if v is not None}}
            for field in dataclasses.fields(cls)
        ],
    }
