"""The command line: a group that loads a command's module when it is used, and turns errors into messages.

Nothing here or in the command modules imports torch, transformers or numba before a command runs.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import FrameType

import click

from tokswap.cli import _output
from tokswap.cli._groups import Group, explained
from tokswap.errors import TokswapError

COMMANDS = {
    "transplant": "tokswap.cli.transplant:transplant",
    "trim": "tokswap.cli.trim:trim",
    "extend": "tokswap.cli.extend:extend",
    "heal": "tokswap.cli.heal:heal",
    "draft": "tokswap.cli.draft:draft",
    "draft-head": "tokswap.cli.draft_head:draft_head",
    "ensemble": "tokswap.cli.ensemble:ensemble",
    "generate": "tokswap.cli.generate:generate",
    "verify": "tokswap.cli.verify:verify",
    "eval": "tokswap.cli.eval:evaluate",
    "inspect": "tokswap.cli.inspect:inspect",
    "compare": "tokswap.cli.compare:compare",
    "report": "tokswap.cli.report:report",
    "methods": "tokswap.cli.methods:methods",
    "tokenizer": "tokswap.cli.tokenizer:tokenizer",
    "hypernet": "tokswap.cli.hypernet:hypernet",
    "alias": "tokswap.cli.alias:alias",
    "completion": "tokswap.cli.completion:completion",
}
"""Command name -> "module:command", in the order of the help page."""
_CALLBACKS, _WEAK = ("cb", "remove", "_remove"), ("importlib._bootstrap>", "weakref.py", "_weakrefset.py")
"""Functions of Python's own that weak references call, and the files that they are in."""


@contextmanager
def _noting_signals(seen: list[int]) -> Iterator[None]:
    """Answer SIGTERM as Ctrl-C: whoever asks a run to end wants it to tidy up. Signals are added to `seen`."""

    def stop(number: int, frame: FrameType | None) -> None:
        if _is_lost(frame):  # a moment later it is not
            threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
            return
        seen.append(number)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # A shell starts jobs in the background with signals that are ignored, and they stay so.
    ours = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    try:
        for number in ours:
            signal.signal(number, stop)
    except ValueError:  # not the main thread: the program around it answers
        ours = []
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _is_lost(frame: FrameType | None) -> bool:
    """Whether Python drops what is raised here: in a destructor, or in the callback of a weak reference."""
    while frame is not None:
        name, file = frame.f_code.co_name, frame.f_code.co_filename
        if name == "__del__" or (name in _CALLBACKS and file.endswith(_WEAK)):
            return True
        frame = frame.f_back
    return False


class LazyGroup(Group):
    """A group whose commands are imported when they are asked for."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note whether a program is asking, before anything can go wrong, and what was typed, for report pages."""
        ctx.meta["tokswap.json"] = "--json" in args
        ctx.meta["tokswap.line"] = shlex.join(["tokswap", *args])
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names in their order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; expected errors become messages, everything else is a bug and keeps its traceback."""
        for stream in (sys.stdout, sys.stderr):  # a name that UTF-8 or the terminal cannot spell is no reason to fail
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        # A large tokenizer.json is a million objects that all stay: garbage collection would take a tenth of a plan.
        gc.set_threshold(200_000, 20, 20)
        atexit.register(gc.freeze)  # Python's last collection walks all of torch and transformers, for a second
        stopped: list[int] = []
        try:
            with _noting_signals(stopped), explained():
                return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            if stopped or isinstance(error, KeyboardInterrupt):  # native code makes errors of its own of an interrupt
                left = ctx.meta.get("tokswap.interrupted", "nothing half-written is left")
                click.echo(f"\ninterrupted: {left}", err=True)
                ctx.exit(128 + (stopped[0] if stopped else signal.SIGINT))
            if isinstance(error, TokswapError) and os.environ.get("TOKSWAP_DEBUG") != "1":
                _output.error(error, as_json=ctx.meta["tokswap.json"])
                ctx.exit(error.exit_status)
            if isinstance(error, click.ClickException) and ctx.meta["tokswap.json"]:  # click says the rest on stderr
                _output.error_document("bad-usage", error.format_message())
            raise


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="tokswap", message="tokswap %(version)s")
def main() -> None:
    """Change the vocabulary of a language model.

    tokswap puts one model's tokenizer on another: it copies the embeddings of the tokens that both know, computes
    those of the others, and writes a checkpoint that loads wherever the old one did.

    \b
    Examples:
      tokswap transplant --model llama --tokenizer mistral --dry-run
      tokswap transplant --model ./my-model --tokenizer ./their-model --out ./mine-with-theirs
      tokswap verify ./mine-with-theirs --against ./my-model

    Models and tokenizers may be local folders, hub ids (OWNER/NAME), aliases (`tokswap alias`) or .gguf files.
    """
