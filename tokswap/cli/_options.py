"""Flags that several commands share."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


class Bytes(click.ParamType):  # type: ignore[type-arg]
    """A size such as 512MB, 2GB or a plain number of bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes."""
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKmMgG]?)(?:i?[bB])?\s*", str(value))
        if not match or float(match[1]) <= 0:
            self.fail(f"{value!r} is no size; write 512MB or 2GB", param, ctx)
        return int(float(match[1]) * {"": 1, "k": 1e3, "m": 1e6, "g": 1e9}[match[2].lower()])


def json_flag(command: Command) -> Command:
    """--json: one document on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def volume(command: Command) -> Command:
    """-q and -v."""
    command = click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors and the result.")(command)
    return click.option("-v", "--verbose", is_flag=True, help="Show what the libraries underneath say.")(command)


def engine_flag(command: Command) -> Command:
    """--engine, for work that splits into parts."""
    return click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="Where corpora are counted and `omp` computes: here, or on a Ray cluster: the one of RAY_ADDRESS or of this "
        "machine, or else one is started here.",
    )(command)


def making_flags(command: Command) -> Command:
    """What the commands that make rows and write a model have in common, in this order."""
    for option in (
        click.option("--seed", type=int, default=0, show_default=True, help="For methods that draw random numbers."),
        click.option("--device", default="cpu", show_default=True, help="Where torch computes: cpu, cuda, mps, ..."),
        click.option(
            "--memory",
            type=Bytes(),
            default="256MB",
            show_default=True,
            metavar="SIZE",
            help="What a method may take for its work besides the tables; more is faster.",
        ),
        engine_flag,
        click.option("--link", is_flag=True, help="Hard-link weight files that do not change instead of copying them."),
        click.option("--dry-run", is_flag=True, help="Print the plan and stop."),
        click.option("--force", is_flag=True, help="Replace a model folder that is in the way."),
    )[::-1]:
        command = option(command)
    return command


def trust_flag(command: Command) -> Command:
    """--trust-remote-code, off unless the user gives it."""
    return click.option(
        "--trust-remote-code", is_flag=True, help="Let the model's own Python code run and come along."
    )(command)


def set_volume(quiet: bool, verbose: bool) -> None:
    """Keep third-party chatter off the screen, unless it is asked for."""
    if not verbose:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        logging.getLogger("transformers").setLevel(logging.ERROR)
    if quiet or not sys.stderr.isatty():
        # Bars are for people who watch: transformers and the hub draw theirs on any stream.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TQDM_DISABLE", "1")


def read_codes(codes: str | None) -> list[str]:
    """Read a list of language codes: de,en."""
    return [code.strip() for code in (codes or "").split(",") if code.strip()]


def read_settings(pairs: tuple[str, ...]) -> dict[str, str]:
    """Read --set key=value pairs."""
    settings: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{pair!r} is not of the form key=value", param_hint="--set")
        settings[key.strip().replace("-", "_")] = value.strip()
    return settings
