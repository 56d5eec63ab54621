"""Flags that several commands share."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from tokswap.cli import _complete

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


def _all(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one, in the order of the help page."""

    def add(command: Command) -> Command:
        for option in options[::-1]:
            command = option(command)
        return command

    return add


def model_option(name: str, help: str, **more: Any) -> Callable[[Command], Command]:
    """An option that names a model, with what a shell may offer for it."""
    return click.option(*name.split(), shell_complete=_complete.models, help=help, **more)


def text_option(help: str, *, required: bool = True) -> Callable[[Command], Command]:
    """--text FILE, repeated."""
    kind = click.Path(path_type=Path)
    return click.option("--text", "texts", multiple=True, required=required, type=kind, metavar="FILE", help=help)


def device_flag(help: str = "Where torch computes: cpu, cuda, mps, ...") -> Callable[[Command], Command]:
    """--device."""
    return click.option("--device", default="cpu", show_default=True, help=help)


def computing_flags(who: str) -> Callable[[Command], Command]:
    """--dtype and --device, for commands that run models."""
    kind = click.Choice(["float32", "bfloat16", "float16"])
    dtype = click.option("--dtype", type=kind, default="float32", show_default=True, help=f"What {who} compute in.")
    return _all(dtype, device_flag())


def judging_flags(who: str) -> Callable[[Command], Command]:
    """How texts are read and what is written in commands that judge; after these comes --seed."""
    return _all(
        click.option(
            "--window", type=int, default=512, show_default=True, metavar="N", help="Tokens that are read at once."
        ),
        click.option(
            "--overlap",
            type=int,
            default=128,
            show_default=True,
            metavar="N",
            help="Tokens of context that windows share.",
        ),
        click.option(
            "--prompt", "prompts", multiple=True, help=f"Let {who} go on from this; may be repeated. [default: five]"
        ),
        click.option(
            "--tokens", type=click.IntRange(0), default=24, show_default=True, help="How far; 0 for no samples."
        ),
        click.option("--seed", type=int, default=0, show_default=True, help="For the draws behind the intervals."),
    )


method_flags: Callable[[Command], Command] = _all(
    click.option(
        "--init",
        shell_complete=_complete.methods,
        default="auto",
        show_default=True,
        metavar="METHOD",
        help="How new rows are made: a method of `tokswap methods`, or a sum of them.",
    ),
    click.option(
        "--set",
        "settings",
        shell_complete=_complete.settings,
        multiple=True,
        metavar="KEY=VALUE",
        help="A setting of the method; may be repeated.",
    ),
)
"""--init and --set."""
output_method_flag: Callable[[Command], Command] = click.option(
    "--init-output",
    "output_init",
    shell_complete=_complete.methods,
    metavar="METHOD",
    help="Another method for an output head. [default: as --init]",
)


def calibrate_flag(where: str = "") -> Callable[[Command], Command]:
    """--calibrate TEXT, repeated. where: which tables, if not all."""
    return click.option(
        "--calibrate",
        shell_complete=_complete.files,
        multiple=True,
        metavar="TEXT",
        type=click.Path(dir_okay=False),
        help=f"Fit the new tables{where} to this text (UTF-8, 40 kB is a good start); may be repeated.",
    )


backend_flag: Callable[[Command], Command] = click.option(
    "--backend",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where corpora are counted and `omp` computes: here, or on a Ray cluster: the one of RAY_ADDRESS or of this "
    "machine, or else one is started here.",
)
"""--backend, for work that splits into parts."""


def writing_flags(
    *, dry_run: str = "Print the plan and stop.", force: str = "Replace a model folder that is in the way."
) -> Callable[[Command], Command]:
    """What the commands that write models have in common."""
    return _all(
        click.option("--link", is_flag=True, help="Hard-link weight files that do not change instead of copying them."),
        click.option("--dry-run", is_flag=True, help=dry_run),
        click.option("--force", is_flag=True, help=force),
    )


making_flags: Callable[[Command], Command] = _all(
    click.option("--seed", type=int, default=0, show_default=True, help="For methods that draw random numbers."),
    device_flag(),
    click.option(
        "--memory",
        type=Bytes(),
        default="256MB",
        show_default=True,
        metavar="SIZE",
        help="What a method may take for its work besides the tables; more is faster.",
    ),
    backend_flag,
)
"""What the commands that make rows have in common."""


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
