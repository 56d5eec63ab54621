"""Command-line flags that derive from option types: a field is declared once, and its flag, type and help follow."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import click

from tokswap.cli import _complete
from tokswap.options.declare import Options, declared, default_of, flag_of, options_of

Command = TypeVar("Command", bound=Callable[..., Any])
Given = TypeVar("Given", bound=Options)

_COMPLETE = {
    "models": _complete.models,
    "files": _complete.files,
    "methods": _complete.methods,
    "settings": _complete.settings,
    "bos": _complete.bos,
}


class Size(click.ParamType):  # type: ignore[type-arg]
    """A size such as 512MB, 2GiB or a plain number of bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes."""
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKmMgG]?)(i?)[bB]?\s*", str(value))
        if not match or float(match[1]) <= 0:
            self.fail(f"{value!r} is no size; write 512MB or 2GiB", param, ctx)
        base = 1024 if match[3] else 1000
        return int(float(match[1]) * base ** " kmg".index(match[2].lower() or " "))


class Codes(click.ParamType):  # type: ignore[type-arg]
    """Codes with commas: de,en."""

    name = "codes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the codes."""
        if isinstance(value, tuple):
            return value
        return tuple(code.strip() for code in str(value).split(",") if code.strip())


def option_flags(options: type[Options], *, help: Mapping[str, str] | None = None) -> Callable[[Command], Command]:
    """Return a decorator that adds a flag for each option of a type.

    Args:
        options: The option type.
        help: Another help text for some options, where the command has more to say.
    """

    def decorate(command: Command) -> Command:
        for item in reversed(options_of(options)):
            if flag_of(item):
                command = _flag(item, (help or {}).get(item.name))(command)
        return command

    return decorate


def read_options(options: type[Given], values: Mapping[str, Any], **more: Any) -> Given:
    """Make an options object of what Click has parsed.

    Args:
        options: The option type.
        values: Name -> value; names that are not options of the type are left out.
        more: Options that the command sets itself.
    """
    own: dict[str, Any] = {}
    for item in dataclasses.fields(options):
        if item.name in values:
            value = values[item.name]
            own[item.name] = _pairs(value) if declared(item).kind == "pairs" else value
    return options(**{**own, **more})


def _flag(item: dataclasses.Field[Any], text: str | None) -> Callable[[Command], Command]:
    known = declared(item)
    default = default_of(item)
    more: dict[str, Any] = {"help": text or known.help}
    if known.complete is not None:
        more["shell_complete"] = _COMPLETE[known.complete]
    if known.kind == "switch":
        return click.option(flag_of(item), item.name, default=None, **more)
    if default is False:
        return click.option(flag_of(item), item.name, is_flag=True, **more)
    more |= {"metavar": known.metavar, "type": _type_of(item, default)}
    if known.kind == "pairs" or (isinstance(default, tuple) and known.kind != "codes"):
        more |= {"multiple": True, "default": tuple(default)}
    elif known.kind == "size" and default is not None:
        more |= {"default": f"{default >> 20}MiB", "show_default": True}
    elif known.kind == "codes":
        more["default"] = ()
    else:
        more |= {"default": default, "show_default": default is not None}
    return click.option(flag_of(item), item.name, **more)


def _type_of(item: dataclasses.Field[Any], default: Any) -> Any:
    known = declared(item)
    if known.kind == "size":
        return Size()
    if known.kind == "codes":
        return Codes()
    if known.choices is not None:
        return click.Choice(known.choices)
    annotation = str(item.type)
    for kind in (int, float):
        if annotation.split(" | ")[0] == kind.__name__:
            return kind
    return str


def _pairs(values: Collection[str]) -> dict[str, str]:
    """Read KEY=VALUE pairs."""
    pairs: dict[str, str] = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{value!r} is not of the form KEY=VALUE", param_hint="--set")
        pairs[key.strip().replace("-", "_")] = text.strip()
    return pairs
