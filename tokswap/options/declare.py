"""How an option is declared: a dataclass field with its help text, its range and its flag.

`option` declares one. `Options` is the base of the types that hold them; it checks every value when an object is made,
so that no part of tokswap meets an impossible one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from tokswap.errors import UsageError, did_you_mean
from tokswap.options.kinds import check_argument, is_listed

Kind = Literal["", "size", "codes", "pairs", "switch"]
"""How the command line reads a value: by its type, as `512MB`, as `de,en`, as repeated KEY=VALUE, as --x/--no-x."""


@dataclass(frozen=True)
class Declared:
    """What is known of an option besides its name, type and default.

    Attributes:
        help: One sentence for `--help`, the docs and editors.
        limits: Smallest and largest value that are allowed, None for no limit.
        choices: The words that are allowed, None for any.
        code: Error code of a value that is not allowed.
        flag: How the command line spells it, where `--name-of-the-field` is not what users type; "" for Python only.
        metavar: What stands for the value in `--help`.
        kind: How the command line reads the value.
        complete: What a shell offers for it: models, files, methods, settings or bos.
        needs: What this option has no effect without: the name of another option, or its name and value
            (`train=adapter`). Several are joined by " or "; one of them is enough.
        recorded: Whether tokswap.json lists it under `plan.options`.
    """

    help: str
    limits: tuple[float | None, float | None] = (None, None)
    choices: tuple[str, ...] | None = None
    code: str = "bad-setting"
    flag: str | None = None
    metavar: str | None = None
    kind: Kind = ""
    complete: str | None = None
    needs: str | None = None
    recorded: bool = True

    @property
    def least(self) -> float | None:
        """Smallest value that is allowed, None for no limit."""
        return self.limits[0]

    @property
    def most(self) -> float | None:
        """Largest value that is allowed, None for no limit."""
        return self.limits[1]


MOST_SEED = 2**32 - 1
"""Largest seed: NumPy takes no more than 32 bits."""


def seed_option(help: str, *, needs: str | None = None) -> Any:
    """Declare the seed of a run."""
    return option(0, help, least=0, most=MOST_SEED, needs=needs)


def option(default: Any, help: str, *, least: float | None = None, most: float | None = None, **more: Any) -> Any:
    """Declare an option: a dataclass field with its help text and limits; `more` are the attributes of `Declared`."""
    declared = Declared(help, (least, most), **more)
    if isinstance(default, dict):
        return field(default_factory=dict, metadata={"declared": declared})
    return field(default=default, metadata={"declared": declared})


def declared(item: dataclasses.Field[Any]) -> Declared:
    """Return what `option` has declared for a field."""
    found: Declared = item.metadata["declared"]
    return found


def default_of(item: dataclasses.Field[Any]) -> Any:
    """Return the default value of a field."""
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return item.default


def options_of(options: type[Any]) -> list[dataclasses.Field[Any]]:
    """Return the options of a type, in the order of its groups: those of a class before those of its bases."""
    fields = {item.name: item for item in dataclasses.fields(options)}
    names = [name for group in options.__mro__ for name in vars(group).get("__annotations__", {})]
    return [fields[name] for name in dict.fromkeys(names) if name in fields]


def flag_of(item: dataclasses.Field[Any]) -> str:
    """Return the flag that sets an option on the command line."""
    own = declared(item).flag
    return own if own is not None else "--" + item.name.replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of the option types. An option is declared in one of them; groups are combined by inheritance."""

    _lists: ClassVar[type] = tuple

    def __post_init__(self) -> None:
        """Turn lists into tuples and check every value.

        Raises:
            UsageError: with the code of the option, where a value is not allowed; idle-option.
        """
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if isinstance(default_of(item), tuple) and is_listed(value):
                value = tuple(value)
                object.__setattr__(self, item.name, value)
            check_value(item, value, flag_of(item) or f"`{item.name}`")
        self._check_needs()

    def _check_needs(self) -> None:
        """Check that no option waits for another one: the user would believe that it has done something."""
        fields = {item.name: item for item in dataclasses.fields(self)}
        for item in fields.values():
            needed = [one.partition("=") for one in (declared(item).needs or "").split(" or ") if one]
            if not needed or not self._is_given(item):
                continue
            if not any(self._has(fields[name], value) for name, _, value in needed):
                flag = flag_of(item)
                others = " or ".join(f"{flag_of(fields[name])} {value}".rstrip() for name, _, value in needed)
                message = f"{flag} has no effect without {others}"
                raise UsageError("idle-option", message, f"add {others}, or omit {flag}")

    def _has(self, item: dataclasses.Field[Any], value: str) -> bool:
        """Return whether an option is given, or has a value where one is named."""
        return getattr(self, item.name) == value if value else self._is_given(item)

    def _is_given(self, item: dataclasses.Field[Any]) -> bool:
        return bool(getattr(self, item.name) != default_of(item))

    def recorded(self) -> dict[str, Any]:
        """Return the options that tokswap.json lists, as plain data."""
        return {
            item.name: _plain(getattr(self, item.name)) for item in options_of(type(self)) if declared(item).recorded
        }


def check_value(item: dataclasses.Field[Any], value: Any, name: str) -> None:
    """Check a value against what was declared.

    Args:
        item: The field that declares the option.
        value: Its value.
        name: How the message names it.

    Raises:
        UsageError: with the code of the option.
    """
    known = declared(item)
    if value is None and (item.default is None or "None" in str(item.type)):
        return
    if known.choices is None or item.type != "str":
        what = "a number of bytes" if known.kind == "size" else ""
        named = "" if isinstance(item.default, tuple) else name  # a flag makes a list by itself
        check_argument(item.name, str(item.type), value, code=known.code, name=named, what=what)
    below = known.least is not None and isinstance(value, (int, float)) and not value >= known.least
    above = known.most is not None and isinstance(value, (int, float)) and not value <= known.most
    if below or above:
        raise UsageError(known.code, f"{name} must be {bounds(known)}, not {value}")
    if known.choices is not None and value not in known.choices:
        near = did_you_mean(str(value), known.choices)
        raise UsageError(known.code, f"{name} must be one of {', '.join(known.choices)}, not {value!r}{near}")


def bounds(known: Declared) -> str:
    """Return the range of an option in words."""
    parts = [f"at least {known.least:,}"] if known.least is not None else []
    parts += [f"at most {known.most:,}"] if known.most is not None else []
    return " and ".join(parts)


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(entry) for entry in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    return str(value) if isinstance(value, Path) else value
