"""Functions whose keyword arguments are the options of a type."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from tokswap.options.declare import declared, default_of, flag_of, options_of
from tokswap.options.kinds import check_argument

P = ParamSpec("P")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
Given = TypeVar("Given")
R = TypeVar("R")


def one_and_keywords(
    options: Callable[P, Given],
) -> Callable[[Callable[[A, Given], R]], Callable[Concatenate[A, P], R]]:
    """Give a function of one value and an options object keyword arguments instead: `f(model, out="x")`.

    A type checker sees every option with its type. `help()` and editors show the signature and each option's help text.

    Args:
        options: The option type. Its fields become the keyword arguments.
    """

    def decorate(function: Callable[[A, Given], R]) -> Callable[Concatenate[A, P], R]:
        call: Callable[Concatenate[A, P], R] = _with_keywords(function, options)
        return call

    return decorate


def two_and_keywords(
    options: Callable[P, Given],
) -> Callable[[Callable[[A, B, Given], R]], Callable[Concatenate[A, B, P], R]]:
    """Do what `one_and_keywords` does, for a function of two values."""

    def decorate(function: Callable[[A, B, Given], R]) -> Callable[Concatenate[A, B, P], R]:
        call: Callable[Concatenate[A, B, P], R] = _with_keywords(function, options)
        return call

    return decorate


def three_and_keywords(
    options: Callable[P, Given],
) -> Callable[[Callable[[A, B, C, Given], R]], Callable[Concatenate[A, B, C, P], R]]:
    """Do what `one_and_keywords` does, for a function of three values."""

    def decorate(function: Callable[[A, B, C, Given], R]) -> Callable[Concatenate[A, B, C, P], R]:
        call: Callable[Concatenate[A, B, C, P], R] = _with_keywords(function, options)
        return call

    return decorate


def _with_keywords(function: Callable[..., Any], options: Any) -> Any:
    fields = options_of(options)
    names = {item.name for item in fields}

    @wraps(function)
    def call(*values: Any, **keywords: Any) -> Any:
        own = {name: value for name, value in keywords.items() if name in names}
        rest = {name: value for name, value in keywords.items() if name not in names}
        signature.bind(*values, **keywords)  # a wrong name is a TypeError that names this function
        given = plain.bind_partial(*values, **rest).arguments
        for name in lists & given.keys():
            if isinstance(given[name], (str, Path)):  # else each of its characters would be a name
                given[name] = [given[name]]
        for name, value in given.items():
            check_argument(name, str(plain.parameters[name].annotation), value)
        return function(**given, options=options(**own))

    plain = inspect.signature(function)
    leading = [entry for name, entry in plain.parameters.items() if name != "options"]
    lists = {entry.name for entry in leading if str(entry.annotation).startswith("Sequence[")}
    keywords = [
        inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=default_of(item), annotation=item.type)
        for item in fields
    ]
    signature = plain.replace(parameters=[*leading, *keywords])
    call.__signature__ = signature  # type: ignore[attr-defined]
    call.__doc__ = (inspect.getdoc(function) or "") + _documented(fields)
    return call


def _documented(fields: list[dataclasses.Field[Any]]) -> str:
    arguments = {flag_of(item): item.name for item in fields}
    lines = [f"    {item.name}: {_help_in_python(item, arguments)}" for item in fields]
    return "\n".join(["", "", "Keyword Args:", *lines])


def _help_in_python(item: dataclasses.Field[Any], arguments: Mapping[str, str]) -> str:
    """Return the help of an option with arguments in place of flags; command lines stay as they are."""
    many = "a mapping" if item.default_factory is not dataclasses.MISSING else "a list"
    text = declared(item).help.replace("repeat for more", many).replace("Repeat for more", many.capitalize())
    parts = text.split("`")
    return "`".join(
        part
        if part.startswith("tokswap ")
        else re.sub("--([a-z][a-z-]+)", lambda flag: arguments.get(flag[0], flag[1].replace("-", "_")), part)
        for part in parts
    )
