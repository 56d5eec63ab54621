"""The methods by name."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

from tokswap.errors import UsageError, did_you_mean
from tokswap.init.base import Initializer

METHODS: Mapping[str, str] = {
    "auto": "tokswap.init.methods.auto:Auto",
    "omp": "tokswap.init.methods.omp:OMP",
    "subword": "tokswap.init.methods.subword:Subword",
    "kriging": "tokswap.init.methods.kriging:Kriging",
    "tokenadapt": "tokswap.init.methods.tokenadapt:TokenAdapt",
    "focus": "tokswap.init.methods.focus:Focus",
    "wechsel": "tokswap.init.methods.wechsel:Wechsel",
    "linear": "tokswap.init.methods.linear:Linear",
    "clp": "tokswap.init.methods.clp:CLP",
    "zett": "tokswap.init.methods.zett:ZeTT",
    "mean": "tokswap.init.methods.statistics:Mean",
    "zero": "tokswap.init.methods.statistics:Zero",
    "gaussian": "tokswap.init.methods.statistics:Gaussian",
}
"""Method name -> "module:Class", imported on use."""


def method_class(name: str) -> type[Any]:
    """Return the class of a method. Raises UsageError unknown-method, with a suggestion."""
    if name not in METHODS:
        raise UsageError(
            "unknown-method",
            f"there is no method `{name}`.{did_you_mean(name, METHODS)}",
            "`tokswap methods` lists them: " + ", ".join(METHODS),
        )
    module, _, attribute = METHODS[name].partition(":")
    return cast("type[Any]", getattr(import_module(module), attribute))


def needs_of(cls: type[Any]) -> str:
    """Return what a method needs besides the two vocabularies and the source's rows, for people."""
    return str(getattr(cls, "needs", "the donor's embeddings" if cls().needs_donor else "nothing"))


def make_initializer(name: str, settings: Mapping[str, object] | None = None) -> Initializer:
    """Return a method with some of its hyperparameters set.

    Settings may be strings, as the command line gives them; they are read as the type of the field's default.
    Raises UsageError: unknown-method, unknown-setting, bad-setting.
    """
    cls = method_class(name)
    fields = {item.name: item for item in dataclasses.fields(cls)}
    values: dict[str, object] = {}
    for key, value in (settings or {}).items():
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            raise UsageError(
                "unknown-setting",
                f"`{name}` has no setting `{key}`." + (f" Did you mean `{close[0]}`?" if close else ""),
                f"`tokswap methods {name}` shows its settings: {', '.join(fields) or 'it has none'}",
            )
        values[key] = _read_setting(name, fields[key], value)
    return cast(Initializer, cls(**values))


def _read_setting(method: str, item: dataclasses.Field[Any], value: object) -> object:
    wanted: type[Any] = type(item.default)
    try:
        if wanted is bool and isinstance(value, str):
            read: Any = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[value.lower()]
        else:
            read = wanted(value)
    except (KeyError, ValueError, TypeError) as error:
        message = f"`{item.name}` of `{method}` takes {_TYPE_NAMES.get(wanted, wanted.__name__)}, not {value!r}"
        raise UsageError("bad-setting", message) from error
    least, most = item.metadata.get("least"), item.metadata.get("most")
    if (least is not None and not read >= least) or (most is not None and not read <= most):
        bounds = " and ".join(
            part for part in (f"at least {least}" * (least is not None), f"at most {most}" * (most is not None)) if part
        )
        raise UsageError("bad-setting", f"`{item.name}` of `{method}` must be {bounds}, not {read}")
    choices = item.metadata.get("choices")
    if choices is not None and read not in choices:
        message = f"`{item.name}` of `{method}` is one of {', '.join(choices)}, not {read!r}."
        raise UsageError("bad-setting", message + did_you_mean(read, choices))
    return read


_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
