"""What a child process does: it runs a command as a user would, and tells how the command ended."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.synchronize import Event
from pathlib import Path

TRACE = 70
"""The exit status of a command that ended in a traceback."""


def preload() -> None:
    """Import what commands import, so that children that are forked from this process start at once."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TOKENIZERS_PARALLELISM="false")
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_DISABLE_PROGRESS_BARS="1", TQDM_DISABLE="1")
    import accelerate  # noqa: F401
    import gguf  # noqa: F401
    import torch
    from transformers import (
        AutoModelForCausalLM,  # noqa: F401
        AutoTokenizer,  # noqa: F401
        LlamaForCausalLM,  # noqa: F401
        PreTrainedTokenizerFast,  # noqa: F401
    )

    import tokswap.cli
    import tokswap.evaluation.evaluate
    import tokswap.evaluation.verify
    import tokswap.hypernet.train
    import tokswap.transplant.plan
    import tokswap.trim.adapters
    import tokswap.trim.plan

    for command in tokswap.cli.COMMANDS.values():
        __import__(command.partition(":")[0])
    torch.set_num_threads(1)


def run_cli(arguments: Sequence[str]) -> int:
    """Run a command in this process. Return its exit status, `TRACE` where it ends in a traceback."""
    from tokswap.cli import main

    try:
        main(list(arguments), prog_name="tokswap")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return TRACE
    return 0


def start(arguments: Sequence[str], folder: Path, said: Path, environment: Mapping[str, str], ready: Event) -> None:
    """Run a command in a child process, which ends with its exit status.

    Args:
        arguments: What a user types after `tokswap`.
        folder: The current folder.
        said: The file that stdout and stderr go to.
        environment: More environment variables.
        ready: Set when the command begins.
    """
    handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.chdir(folder)
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(n, "w", closefd=False), write_through=True) for n in (1, 2))
    ready.set()
    status = run_cli(arguments)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(status)


def start_on(
    kind: str,
    place: Path,
    size: int,
    keep: Path | None,
    result: Path,
    arguments: Sequence[str],
    folder: Path,
    said: Path,
    environment: Mapping[str, str],
) -> None:
    """Run a command with a file system of its own mounted on a folder.

    Args:
        kind: "full" for an empty file system of `size` bytes, "read-only" for the files that are there.
        place: The folder.
        size: Bytes of a full file system.
        keep: A file or folder that is copied to a full file system first.
        result: Gets a JSON object: the exit status, and the files in `place` before and after.
        arguments: What a user types after `tokswap`.
        folder: The current folder.
        said: The file that stdout and stderr go to.
        environment: More environment variables.
    """
    import json
    import shutil
    from collections import namedtuple
    from multiprocessing import get_context

    try:
        mount(kind, place, size)
    except OSError as error:
        result.write_text(json.dumps({"skipped": str(error)}))
        os._exit(0)
    if keep is not None and kind == "full":
        copy = shutil.copytree if keep.is_dir() else shutil.copyfile
        copy(keep, place / keep.name)
    before = _listing(place)
    child = os.fork()
    if not child:
        if kind == "full":  # others fill the disk while the command runs, so its check beforehand finds room
            usage = namedtuple("usage", "total used free")
            shutil.disk_usage = lambda path: usage(1 << 40, 0, 1 << 40)  # type: ignore[assignment]
        start(arguments, folder, said, environment, get_context("fork").Event())
    _, status = os.waitpid(child, 0)
    after = _listing(place)
    result.write_text(json.dumps({"status": os.waitstatus_to_exitcode(status), "before": before, "after": after}))
    os._exit(0)


def mount(kind: str, place: Path, size: int) -> None:
    """Make `place` a small disk or read-only, for this process alone. Raise OSError where that is not allowed."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    private, bind, remount, read_only = 1 << 18 | 1 << 14, 1 << 12, 1 << 5, 1

    def call(function: str, *arguments: object) -> None:
        if getattr(libc, function)(*arguments):
            raise OSError(ctypes.get_errno(), f"{function}: {os.strerror(ctypes.get_errno())}")

    here = os.fsencode(place)
    call("unshare", 0x00020000)
    call("mount", None, b"/", None, private, None)
    if kind == "full":
        call("mount", b"tmpfs", here, b"tmpfs", 0, f"size={size}".encode())
    else:
        call("mount", here, here, None, bind, None)
        call("mount", None, here, None, bind | remount | read_only, None)


def _listing(place: Path) -> dict[str, int]:
    return {str(path.relative_to(place)): path.stat().st_size for path in sorted(place.rglob("*")) if path.is_file()}
