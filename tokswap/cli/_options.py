"""Flags that several commands share."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from tokswap.cli import _complete
from tokswap.errors import UsageError

Command = TypeVar("Command", bound=Callable[..., Any])

_LIBRARIES = r"(torch|transformers|peft|accelerate|huggingface_hub|sentence_transformers|safetensors)\b"
"""Modules whose warnings are about themselves."""
RUN_CODE = "Let Python code that comes with the model run."
"""Help of --trust-remote-code for commands that write no model."""


def json_flag(command: Command) -> Command:
    """--json: one document on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def volume(command: Command) -> Command:
    """-q and -v."""
    command = click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors and the result.")(command)
    return click.option(
        "-v", "--verbose", is_flag=True, help="Show what happens inside, and what the libraries underneath say."
    )(command)


def together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one, in the order of the help page."""

    def add(command: Command) -> Command:
        for option in options[::-1]:
            command = option(command)
        return command

    return add


def model_option(name: str, help: str, **more: Any) -> Callable[[Command], Command]:
    """An option that names a model, with what a shell may offer for it."""
    return click.option(*name.split(), shell_complete=_complete.models, help=help, **more)


def text_option(help: str, *, required: bool = True, field: bool = True) -> Callable[[Command], Command]:
    """--text FILE, repeated, and --field where the command's own options do not have it."""
    kind = click.Path(path_type=Path)
    text = click.option("--text", "texts", multiple=True, required=required, type=kind, metavar="FILE", help=help)
    return together(text, field_option) if field else text


def field_option(command: Command) -> Command:
    """--field NAME."""
    help = "Name of the text field in JSON lines and parquet files."
    return click.option("--field", default="text", show_default=True, metavar="NAME", help=help)(command)


def refuse_idle(names: Collection[str], when: str) -> None:
    """Refuse flags that were typed and that the command would not read: the user would believe that they count.

    Args:
        names: The parameters that are not read.
        when: Why not, for the message: "with --byte-level".

    Raises:
        UsageError: idle-option.
    """
    context = click.get_current_context()
    for one in context.command.params:
        if one.name in names and context.get_parameter_source(one.name) is ParameterSource.COMMANDLINE:
            raise UsageError("idle-option", f"{one.opts[0]} has no effect {when}", f"omit {one.opts[0]}")


def set_volume(quiet: bool, verbose: bool) -> None:
    """Keep third-party chatter off the screen, unless it is asked for."""
    if verbose:
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger("tokswap").setLevel(logging.DEBUG)
    else:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        if not sys.warnoptions:
            warnings.filterwarnings("ignore", module=_LIBRARIES)
    if quiet or not sys.stderr.isatty():
        # Bars are for people who watch: transformers and the hub draw theirs on any stream.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TQDM_DISABLE", "1")
