"""The types of arguments: whether a value is what an annotation says, and what to call it in a message.

An annotation is read as the text that stands in the source: `str | Path | None`, `Sequence[str | Path]`. What is not
known here (`ModelLike`, `Any`) may be anything, and is checked where it is opened.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import wraps
from numbers import Integral, Real
from pathlib import PurePath
from typing import ParamSpec, TypeVar

from tokswap.errors import UsageError

P = ParamSpec("P")
R = TypeVar("R")

_WORDS = {
    "bool": ("True or False", "True or False"),
    "float": ("a number", "numbers"),
    "int": ("a whole number", "whole numbers"),
    "str": ("text", "texts"),
    "Path": ("a path", "paths"),
    "Callable": ("a function", "functions"),
}
"""Name of a type -> what one value and several are called."""
_LISTS, _MAPPINGS = ("Sequence[", "list[", "tuple["), ("Mapping[", "dict[")
_NO_LISTS = (str, bytes, bytearray, PurePath, Mapping)
"""What Python goes through like a list and nobody means so."""
_PATH = "str | Path"
_SHOWN = 80


def is_of(annotation: str, value: object) -> bool:
    """Return whether a value is what an annotation says."""
    return any(_is_one(member, value) for member in _members(annotation))


def called(annotation: str, *, several: bool = False) -> str:
    """Return what a value of an annotated type is called: "text or a whole number", "a list of names or paths"."""
    members = [one for one in _members(annotation) if one != "None"]
    if {"str", "Path"} <= set(members):
        return "names or paths" if several else "a name or a path"
    return " or ".join(_called_one(one, several) for one in members)


def is_listed(value: object) -> bool:
    """Return whether a value counts as a list of others."""
    return isinstance(value, Iterable) and not isinstance(value, _NO_LISTS)


def shown(value: object) -> str:
    """Return a value as a message shows it."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def check_argument(
    argument: str, annotation: str, value: object, *, code: str = "bad-setting", name: str = "", what: str = ""
) -> None:
    """Check an argument of a function.

    Args:
        argument: Its name in Python.
        annotation: Its type.
        value: Its value.
        code: Error code of another type.
        name: What the message calls the argument; its name in Python by default.
        what: What the message says that it takes; by default what the annotation says.

    Raises:
        UsageError: with the code.
    """
    if is_of(annotation, value):
        return
    alone = isinstance(value, (str, PurePath)) and is_of(annotation, [value])
    raise UsageError(
        code,
        f"{name or f'`{argument}`'} takes {what or called(annotation)}, not {shown(value)}",
        f"write {argument}=[{shown(value)}]" if alone else "",
    )


def typed(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function refuse arguments of another type than it is annotated with.

    A text for `trust_remote_code` would count as yes, and other values would end in a traceback far from here. The
    errors are UsageError bad-setting, and bad-model for what is no path.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: P.args, **keywords: P.kwargs) -> R:
        for name, value in signature.bind(*args, **keywords).arguments.items():
            annotation = str(signature.parameters[name].annotation)
            code = "bad-model" if annotation == _PATH else "bad-setting"  # a path without more words is that of a model
            check_argument(name, annotation, value, code=code)
        return function(*args, **keywords)

    return call


def _is_one(member: str, value: object) -> bool:
    if member == "None":
        return value is None
    if member == "bool":
        return isinstance(value, bool)
    if member in ("int", "float"):
        return isinstance(value, Integral if member == "int" else Real) and not isinstance(value, bool)
    if member == "str":  # a `torch.device` is as good as its name
        return isinstance(value, str) or type(value).__module__ == "torch"
    if member == "Path":
        return isinstance(value, PurePath)
    if member.startswith("Callable["):
        return callable(value)
    if member.startswith(_LISTS):
        entries = value if isinstance(value, Collection) else ()  # what can be read once is left unread
        return is_listed(value) and all(is_of(_inner(member), entry) for entry in entries)
    if member.startswith(_MAPPINGS):
        return isinstance(value, Mapping)
    return True


def _called_one(member: str, several: bool) -> str:
    if member.startswith(_LISTS):
        return f"a list of {called(_inner(member), several=True)}"
    if member.startswith(_MAPPINGS):
        return "a mapping"
    return _WORDS.get(member.partition("[")[0], ("a value", "values"))[several]


def _inner(member: str) -> str:
    return member.partition("[")[2].removesuffix("]").removesuffix(", ...")


def _members(annotation: str) -> list[str]:
    """Split an annotation at the `|` that are not inside brackets."""
    found, depth = [""], 0
    for character in annotation:
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character == "|" and not depth:
            found.append("")
        else:
            found[-1] += character
    return [one.strip() for one in found]
