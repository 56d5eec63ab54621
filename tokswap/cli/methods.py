"""tokswap methods."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from tokswap.cli import _complete, _options, _output

if TYPE_CHECKING:
    from tokswap.init.base import Initializer


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
    """List the methods for new rows, or show the settings of one."""
    from tokswap.init.registry import METHODS, method_class

    described = [_describe(key, method_class(key)) for key in ([name] if name else METHODS)]
    if as_json:
        _output.document(described[0] if name else described)
    elif name:
        click.echo("\n".join(_one(described[0])))
    else:
        rows = [(method["name"], method["needs"], method["summary"]) for method in described]
        click.echo("\n".join(_output.columns([("name", "needs", ""), *rows])))


def _one(method: dict[str, Any]) -> list[str]:
    """Return the lines about one method."""
    lines = [f"{method['name']}: {method['summary']}", "", method["description"], ""]
    lines += [f"reference: {method['source']}", f"needs: {method['needs']}"]
    if method["settings"]:
        rows = [(setting["name"], f"{setting['default']}", setting["help"]) for setting in method["settings"]]
        lines += ["", "settings (--set name=value)", *_output.columns([("name", "default", ""), *rows])]
    return lines


def _describe(name: str, cls: type[Initializer]) -> dict[str, Any]:
    from tokswap.init.registry import needs_of

    return {
        "name": name,
        "summary": cls.summary,
        "description": " ".join((cls.__doc__ or "").split()),
        "source": cls.reference,
        "needs": needs_of(cls),
        "needs_donor": cls().donor_use() == "required",
        "settings": [_setting(field) for field in dataclasses.fields(cls)],
    }


def _setting(field: dataclasses.Field[Any]) -> dict[str, Any]:
    from tokswap.options.declare import declared

    known = declared(field)
    limits = {"help": known.help, "least": known.least, "most": known.most, "choices": known.choices}
    return {
        "name": field.name,
        "default": field.default,
        **{key: value for key, value in limits.items() if value is not None},
    }
