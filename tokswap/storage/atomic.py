"""Output folders that appear whole or not at all: checks first, then a locked temporary folder, then one rename."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import glob
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokswap.errors import OutputError, TokswapError

_WORK = ".tokswap-"
_ASIDE = "-old"
_MARKS = ("config.json", "adapter_config.json", "tokenizer_training.json")
"""Files by which a folder is known as a model, an adapter or a trained tokenizer, which --force replaces."""


@dataclass(frozen=True)
class Place:
    """A place that tokswap writes to, in the words of its errors.

    Attributes:
        what: What is written there.
        label: What the path is called.
        another: How the user chooses another place.
    """

    what: str
    label: str
    another: str


RESULT = Place("the result", "out", "choose another --out")
CACHE = Place("the cache", "cache", "set TOKSWAP_CACHE to another folder")
TEMPORARY = Place("a temporary copy", "folder", "set TMPDIR to another folder")


def check_output(out: Path, *, sources: Sequence[Path | None], needed: int, force: bool) -> None:
    """Check that a result can be written, before any work is done.

    Args:
        out: The folder of the result.
        sources: The folders of the inputs, which are never changed; None for an input in memory.
        needed: The size of the result, in bytes.
        force: Whether a model folder at `out` may be replaced.

    Raises:
        OutputError: output-is-source, output-exists, not-a-checkpoint, disk-full, cannot-write.
    """
    real = out.resolve()
    for source in (path.resolve() for path in sources if path is not None):
        if real == source or real in source.parents or source in real.parents:
            raise OutputError(
                "output-is-source",
                "the output overlaps the folder of an input, and tokswap never changes inputs",
                "choose another --out",
                out=out,
                input=source,
            )
    if out.is_symlink() and not out.exists():
        hint = "remove the link, make the folder that it names, or choose another --out"
        message = f"the output is a link to {os.readlink(out)}, which is not there"
        raise OutputError("output-exists", message, hint, out=out)
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):  # an empty folder may be replaced
        replaceable = any((out / name).is_file() for name in _MARKS)
        if not force:
            hint = "choose another --out" + ", or --force" * replaceable
            raise OutputError("output-exists", "the output exists already", hint, out=out)
        if not replaceable:
            hint = "--force replaces folders of models and trained tokenizers only"
            raise OutputError("not-a-checkpoint", "the output exists, and it is not a model folder", hint, out=out)
    check_room(real, needed)


def check_room(out: Path, needed: int, place: Place = RESULT) -> None:
    """Check that a folder is writable and its disk has room.

    Args:
        out: The path of what is written.
        needed: Its size in bytes.
        place: What it is.

    Raises:
        OutputError: disk-full, cannot-write.
    """
    parent = _nearest_existing(out.resolve().parent)
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise OutputError("cannot-write", "this folder is not writable", place.another, folder=parent)
    free = shutil.disk_usage(parent).free
    if free < needed:
        message = f"{place.what} needs {needed / 1e6:,.1f} MB, but only {free / 1e6:,.1f} MB are free"
        hint = f"free some space, or {place.another}"
        if place is RESULT:
            hint += "; --link saves the space of untouched shards"
        raise OutputError("disk-full", message, hint, folder=parent)


@contextlib.contextmanager
def workspace(out: Path, force: bool, place: Place = RESULT) -> Iterator[Path]:
    """Give a temporary folder beside `out`. On success it is renamed to `out`; on failure it is removed.

    The folder is locked as long as its writer lives. A later run removes unlocked ones: their writers were killed.

    Args:
        out: The folder of the result.
        force: Whether a folder at `out` may be replaced.
        place: What the folder is.

    Yields:
        The temporary folder.

    Raises:
        OutputError: output-exists, disk-full, cannot-write.
    """
    work, lock = _open_work(out, place)
    try:
        with library_writes():
            work.chmod(0o777 & ~_umask())
            yield work
            os.fsync(lock)
            _put_in_place(work, out, force)
    except OSError as error:
        raise write_error(error, out, place) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def scratch(beside: Path, place: Place = RESULT) -> Iterator[Path]:
    """Give a temporary folder beside a path, and remove it at the end. After a kill the next run removes it.

    Args:
        beside: A path in the parent of the temporary folder. Its name decides which leftovers are removed.
        place: What is written there.

    Yields:
        The temporary folder.

    Raises:
        OutputError: disk-full, cannot-write.
    """
    work, lock = _open_work(beside, place)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def temporary_copy(fill: Callable[[Path], object]) -> Iterator[Path]:
    """Give a folder among the system's temporary files, and remove it at the end.

    Args:
        fill: Writes what the folder holds.

    Yields:
        The folder.

    Raises:
        OutputError: disk-full, cannot-write.
    """
    with contextlib.ExitStack() as stack:
        try:
            with library_writes():
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tokswap-")))
                fill(folder)
        except OSError as error:
            raise write_error(error, Path(os.environ.get("TMPDIR", "/tmp")), TEMPORARY) from error
        yield folder


@contextlib.contextmanager
def held(
    folder: Path,
    *,
    wait: bool = True,
    use: str = "is writing to this output",
    hint: str = "wait for it, or choose another --out",
) -> Iterator[None]:
    """Lock a folder for this process. The folder is created if it is missing.

    Args:
        folder: The folder.
        wait: Whether to wait for another process that holds the lock.
        use: What that process does with the folder, for the error.
        hint: What its user can do then.

    Raises:
        OutputError: output-in-use.
        OSError: The folder cannot be created or opened.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    except BlockingIOError as error:
        raise OutputError("output-in-use", f"another run {use}", hint, folder=folder) from error
    finally:
        os.close(handle)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file atomically, in a folder that this process holds.

    Raises:
        OSError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.new")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def allocate(path: Path) -> None:
    """Give a file all the blocks of its size, before it is written through a map.

    A write to a map for which the disk has no block ends the process (SIGBUS), without a message.

    Raises:
        OSError: The disk has not enough room.
    """
    size = path.stat().st_size
    if size and hasattr(os, "posix_fallocate"):  # macOS has none
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)


def write_error(error: OSError, path: Path, place: Place = RESULT) -> OutputError:
    """Return the OutputError for a failed write: disk-full or cannot-write."""
    where = {place.label: path}
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        message = f"the disk of {place.what} is full"
        return OutputError("disk-full", message, f"free some space, or {place.another}", **where)
    return OutputError("cannot-write", f"{place.what} could not be written: {error}", place.another, **where)


@contextlib.contextmanager
def library_writes() -> Iterator[None]:
    """Raise OSError where a library has an error of its own for a disk that is full or cannot be written.

    safetensors and tokenizers give the number of the system's error in their text, torch gives none.
    """
    try:
        yield
    except (OSError, TokswapError):
        raise
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None and not str(error).startswith("[enforce fail at inline_container.cc"):
            raise
        raise OSError(int(number[1]) if number else errno.EIO, str(error)) from error


def _open_work(out: Path, place: Place) -> tuple[Path, int]:
    """Remove what killed runs have left. Returns a temporary folder and its lock."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        return _claim(out)
    except OSError as error:
        raise write_error(error, out, place) from error


def _claim(out: Path) -> tuple[Path, int]:
    """Create and lock a temporary folder. Another run may sweep it before it is locked: then create another one."""
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
    """Remove what killed runs have left beside `out`. Put an old result back if its replacement never appeared."""
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
    """Rename the finished folder. With `force`, swap it with an existing folder in one step."""
    if force and out.is_dir() and any(out.iterdir()):
        if not _exchange(work, out):
            # Without an atomic exchange there is a moment when only the old result exists, under a temporary name.
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
                message = "something else was written to the output during this run"
                raise OutputError("output-exists", message, "choose another --out", out=out) from error
            raise
    handle = os.open(out.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two paths atomically (Linux renameat2). Returns False on systems that cannot."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        at_cwd, exchange = -100, 2
        return bool(libc.renameat2(at_cwd, os.fsencode(first), at_cwd, os.fsencode(second), exchange) == 0)
    except (OSError, AttributeError):
        return False


def _nearest_existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
