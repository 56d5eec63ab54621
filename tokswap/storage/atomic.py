"""An output folder that appears whole or not at all: checks beforehand, a locked place to work, one rename at the end."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokswap.errors import OutputError

_WORK = ".tokswap-"
_ASIDE = "-old"


def check_output(out: Path, *, sources: Sequence[Path], needed: int, force: bool) -> None:
    """Raise OutputError where a result cannot go to `out`, before any work is done.

    output-is-source, output-exists, not-a-checkpoint (what --force must not delete), disk-full, cannot-write.
    """
    real = out.resolve()
    for source in sources:
        source = source.resolve()
        if real == source or real in source.parents or source in real.parents:
            raise OutputError(
                "output-is-source",
                "the output lies in the folder of an input, and inputs are never changed",
                "choose another --out",
                out=out,
                input=source,
            )
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):  # an empty folder is as good as none
        if not force:
            raise OutputError("output-exists", "the output exists already", "choose another --out, or --force", out=out)
        if not any((out / name).is_file() for name in ("config.json", "adapter_config.json")):
            hint = "--force replaces a model folder, nothing else"
            raise OutputError("not-a-checkpoint", "what stands at the output is no model folder", hint, out=out)
    check_room(real, needed)


def check_room(out: Path, needed: int) -> None:
    """Raise OutputError where `needed` bytes cannot be written at `out`: disk-full, cannot-write."""
    parent = _existing(out.resolve().parent)
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise OutputError("cannot-write", "this folder is not writable", "choose another --out", folder=parent)
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise OutputError(
            "disk-full",
            f"the result needs {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free",
            "free some space, or choose an --out on another disk; --link saves the space of untouched shards",
            folder=parent,
        )


@contextlib.contextmanager
def workspace(out: Path, force: bool) -> Iterator[Path]:
    """Give a temporary folder beside `out` that takes its place at the end, or vanishes.

    The folder is locked while its writer lives, so that a later run can tell the leavings of a killed one.
    """
    work, lock = _opened(out)
    try:
        work.chmod(0o777 & ~_umask())
        yield work
        os.fsync(lock)
        _put_in_place(work, out, force)
    except OSError as error:
        raise write_error(error, out) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def held(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Keep a folder, which is made where it is not there, to this process. wait: for another one that has it.

    Raises OutputError output-in-use, OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    except BlockingIOError as error:
        message = "another run is writing to this output"
        raise OutputError("output-in-use", message, "wait for it, or choose another --out", out=folder) from error
    finally:
        os.close(handle)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all, in a folder that this process holds. Raises OSError."""
    temporary = path.with_name(f".{path.name}.new")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextlib.contextmanager
def scratch(beside: Path) -> Iterator[Path]:
    """Give a temporary folder beside a path that vanishes at the end; the next run removes what a kill has left."""
    work, lock = _opened(beside)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(lock)


def _opened(out: Path) -> tuple[Path, int]:
    """Remove what killed runs have left, and return a temporary folder and its lock."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        return _claim(out)
    except OSError as error:
        raise write_error(error, out) from error


def _claim(out: Path) -> tuple[Path, int]:
    """Make a temporary folder and lock it; another one where the sweep of a run beside this was faster."""
    while True:
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}{_WORK}", dir=out.parent))
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(work, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                work.stat()
            except OSError:
                os.close(lock)
                raise
            return work, lock


def _sweep(out: Path) -> None:
    """Remove what killed runs have left beside `out`; put an old result back that had only been set aside."""
    for stale in out.parent.glob(f".{glob.escape(out.name)}{_WORK}*"):
        with contextlib.suppress(OSError):
            handle = os.open(stale, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if stale.name.endswith(_ASIDE) and not os.path.lexists(out):
                    stale.rename(out)
                else:
                    shutil.rmtree(stale, ignore_errors=True)
            finally:
                os.close(handle)


def _put_in_place(work: Path, out: Path, force: bool) -> None:
    """Rename the finished folder to its name; with --force exchange it with what is there, in one step."""
    if force and out.is_dir() and any(out.iterdir()):
        if not _exchange(work, out):
            # No atomic exchange on this system: for an instant only the old result's temporary name exists.
            aside = work.with_name(work.name + _ASIDE)
            out.rename(aside)
            try:
                work.rename(out)
            except OSError:
                aside.rename(out)
                raise
            shutil.rmtree(aside, ignore_errors=True)
    else:
        try:
            work.rename(out)  # replaces an empty folder, refuses any other
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                message = "something else was written to the output while this ran"
                raise OutputError("output-exists", message, "choose another --out", out=out) from error
            raise
    handle = os.open(out.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two paths atomically (Linux renameat2); False where that is not to be had."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        at_cwd, exchange = -100, 2
        return bool(libc.renameat2(at_cwd, os.fsencode(first), at_cwd, os.fsencode(second), exchange) == 0)
    except (OSError, AttributeError):
        return False


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_error(error: OSError, out: Path) -> OutputError:
    """Return what to raise where a result cannot be written: disk-full, cannot-write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space, or choose an --out on another disk"
        return OutputError("disk-full", "the disk filled up; nothing was kept of the unfinished result", hint, out=out)
    return OutputError("cannot-write", f"the result could not be written: {error}", "choose another --out", out=out)
