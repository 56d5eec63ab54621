"""The methods by name, and the settings that a user may give them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib import import_module
from numbers import Real
from pathlib import Path
from typing import Any, cast

from tokswap.errors import UsageError, did_you_mean
from tokswap.init.base import Initializer
from tokswap.options.declare import check_value

METHODS: Mapping[str, str] = {
    "auto": "tokswap.init.methods.auto:Auto",
    "omp": "tokswap.init.methods.omp:OMP",
    "subword": "tokswap.init.methods.subword:Subword",
    "kriging": "tokswap.init.methods.kriging:Kriging",
    "tokenadapt": "tokswap.init.methods.tokenadapt:TokenAdapt",
    "focus": "tokswap.init.methods.focus:Focus",
    "wechsel": "tokswap.init.methods.wechsel:Wechsel",
    "trans-tokenizer": "tokswap.init.methods.trans_tokenizer:TransTokenizer",
    "linear": "tokswap.init.methods.linear:Linear",
    "clp": "tokswap.init.methods.clp:CLP",
    "zett": "tokswap.init.methods.zett:ZeTT",
    "mean": "tokswap.init.methods.statistics:Mean",
    "zero": "tokswap.init.methods.statistics:Zero",
    "gaussian": "tokswap.init.methods.statistics:Gaussian",
}
"""Method name -> "module:Class", imported on use."""


CANDIDATES: Mapping[bool, tuple[str, ...]] = {
    True: ("kriging", "omp", "linear", "subword"),
    False: ("subword", "subword(weights=exponential)", "subword(weights=length)"),
}
"""Whether there is a donor -> the methods that `auto` chooses from, by a self-test on hidden shared tokens."""


def method_class(name: str) -> type[Initializer]:
    """Return the class of a method.

    Raises:
        UsageError: unknown-method, with a suggestion.
    """
    if name not in METHODS:
        raise UsageError(
            "unknown-method",
            f"there is no method `{name}`{did_you_mean(name, METHODS)}",
            "`tokswap methods` lists them: " + ", ".join(METHODS),
        )
    module, _, attribute = METHODS[name].partition(":")
    return cast("type[Initializer]", getattr(import_module(module), attribute))


def needs_of(cls: type[Initializer]) -> str:
    """Say what a method needs besides both vocabularies and the source rows."""
    return cls.needs or ("the donor's embeddings" if cls().donor_use() == "required" else "nothing")


def make_initializer(name: str, settings: Mapping[str, object] | None = None) -> Initializer:
    """Return a method with some of its hyperparameters set.

    Args:
        name: Name of the method.
        settings: Hyperparameter -> value. A string, as the command line gives it, is read as the type of the default.

    Raises:
        UsageError: unknown-method, unknown-setting, bad-setting.
    """
    cls = method_class(name)
    fields = {item.name: item for item in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    for key, value in (settings or {}).items():
        if key not in fields:
            raise UsageError(
                "unknown-setting",
                f"`{name}` has no setting `{key}`{did_you_mean(str(key), fields)}",
                f"`tokswap methods {name}` shows its settings: {', '.join(fields) or 'it has none'}",
            )
        values[key] = _read_setting(name, fields[key], value)
    return cls(**values)


_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _read_setting(method: str, item: dataclasses.Field[Any], value: object) -> object:
    """Return a setting as the type of its default: a text is read, and any other value must be of that type."""
    wanted: type[Any] = type(item.default)
    read = value
    try:
        if isinstance(value, str):
            read = _BOOLEANS[value.lower()] if wanted is bool else wanted(value)
        elif (wanted is str and isinstance(value, Path)) or (wanted is float and isinstance(value, Real)):
            read = value if isinstance(value, bool) else wanted(value)
    except (KeyError, ValueError) as error:
        message = f"`{item.name}` of `{method}` takes {_TYPE_NAMES[wanted]}, not {value!r}"
        raise UsageError("bad-setting", message) from error
    check_value(item, read, f"`{item.name}` of `{method}`")
    return read
