"""What a process does while it reads damaged files, seen through Python's audit hooks.

The hooks do not see files that native code opens (safetensors, tokenizers, pyarrow). What it writes is found in the
folders afterwards.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import makers

_ALWAYS = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.Popen",
    "pickle.find_class",
    "socket.connect",
    "ctypes.dlopen.",
)
_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")
_LIBRARIES = tuple(
    {
        *map(os.path.realpath, (sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"), *site.getsitepackages())),
        str(Path(makers.__file__).parent.parent),
        os.path.expanduser("~/.cache/huggingface"),
        "/usr",
        "/lib",
        "/proc",
        "/sys",
        "/dev",
        "/etc",
    }
)


class _Watch:
    """The folders that may be read and written now, and what was done elsewhere."""

    root: str = ""
    out: tuple[str, ...] = ()
    seen: list[str]
    installed = False

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.root:
            return
        if event in _ALWAYS:
            self.seen.append(f"{event} {arguments!r:.200}")
        elif event == "open":
            path, mode, flags = arguments
            if isinstance(path, (str, bytes)):
                writes = (
                    bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
                    if isinstance(flags, int)
                    else False
                )
                writes = writes or any(letter in str(mode or "") for letter in "wax+")
                self._path(event, os.fsdecode(path), writes)
        elif event in _CHANGES:
            base = arguments[-1] if event in ("os.remove", "os.rmdir", "os.mkdir") else -1
            where = os.readlink(f"/proc/self/fd/{base}") if isinstance(base, int) and base >= 0 else ""  # shutil.rmtree
            for path in arguments[: 2 if event in ("os.rename", "os.link", "os.symlink") else 1]:
                if isinstance(path, (str, bytes, os.PathLike)):
                    self._path(event, os.path.join(where, os.fsdecode(path)), True)

    def _path(self, event: str, path: str, writes: bool) -> None:
        whole = os.path.abspath(path)
        allowed = self.out if writes else (self.root, *self.out, *_LIBRARIES)
        inside = any(whole == folder or whole.startswith(folder + "/") for folder in allowed)
        if whole == "/dev/null" or (writes and whole.endswith((".pyc", ".nbi", ".nbc"))) or "__pycache__" in whole:
            return
        if not inside or os.path.basename(whole) == "secret.safetensors":
            self.seen.append(f"{event} {'for writing ' if writes else ''}{whole}")


_WATCH = _Watch()


@contextmanager
def watched(root: Path, out: Path) -> Iterator[list[str]]:
    """Watch what this process does.

    Args:
        root: The folder that may be read.
        out: The folder that may be written.

    Yields:
        A list that grows by everything else that is done.
    """
    if not _WATCH.installed:
        sys.addaudithook(_WATCH.hook)
        _Watch.installed = True
    _WATCH.seen = []
    _WATCH.out = (str(out), tempfile.gettempdir() + "/tokswap-scratch")
    _WATCH.root = str(root)
    try:
        yield _WATCH.seen
    finally:
        _WATCH.root = ""
