"""The only writer of checkpoints.

Everything that is not a vocabulary matrix is copied as bytes, matrices are built in blocks, and the result appears
under its name in one rename, or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tokswap.checkpoint.edit import Edit, GroupRows, MatrixEdit, merged_blocks
from tokswap.checkpoint.embeddings import NewRows, decode, encode
from tokswap.checkpoint.layout import Layout, OutShard, index_of
from tokswap.checkpoint.reader import Checkpoint
from tokswap.storage.atomic import workspace
from tokswap.storage.json_files import json_bytes

_ROWS_BYTES = 4 << 20
_COPY_BYTES = 256 << 20

Solve = Callable[[tuple[MatrixEdit, ...]], GroupRows]
"""Computes the rows of a group of matrices; see `Edit.groups`."""
Progress = Callable[[int], object]
"""Told the bytes as they are written."""


@dataclass(frozen=True)
class Hooks:
    """What a run does while a result is written.

    Attributes:
        check: Gets the finished folder before it takes its place. What it raises stops the run, and nothing is left.
        last_files: Asked just before the result appears: name -> content.
        progress: Told the bytes as they are written.
    """

    check: Callable[[Path], object] = lambda folder: None
    last_files: Callable[[], Mapping[str, bytes]] = dict
    progress: Progress = lambda nbytes: None


def write_result(
    edit: Edit,
    layout: Layout,
    out: Path,
    solve: Solve,
    *,
    link: bool = False,
    force: bool = False,
    hooks: Hooks | None = None,
) -> None:
    """Write a result to a folder.

    Args:
        edit: What to write.
        layout: Its weight files, from `lay_out`.
        out: The folder, which appears whole or not at all.
        solve: Computes the rows of a group; called once a group, when its first tensor is written.
        link: Whether to hard-link untouched weight files.
        force: Whether to replace a model folder.
        hooks: What else happens on the way.

    Raises:
        OutputError: disk-full, cannot-write, output-exists.
    """
    hooks = hooks or Hooks()
    out = out.resolve()  # a link to a folder stays a link, and its folder is replaced
    rows_of = RowsOnce(edit, layout, solve)
    with workspace(out, force) as work:
        for name, content in [*edit.files.items(), *_config_files(edit).items()]:
            _write_file(work / name, content)
        for shard in layout.shards:
            target = work / shard.source.path.name
            if shard.untouched:
                _copy_whole(shard.source.path, target, link)
                hooks.progress(shard.nbytes)
            else:
                _write_shard(edit, shard, target, rows_of, hooks.progress)
        if edit.checkpoint.weights.index is not None:
            _write_file(work / edit.checkpoint.weights.index_name, index_of(edit.checkpoint, layout))
        hooks.check(work)
        for name, data in hooks.last_files().items():
            _write_file(work / name, data)


class RowsOnce:
    """Solves each group when its first tensor is asked for, and lets go of its rows after the last one.

    So two large matrices need not fit into memory together.
    """

    def __init__(self, edit: Edit, layout: Layout, solve: Solve) -> None:
        self._solve = solve
        self._group_of = {matrix.name: group for group in edit.groups for matrix in group}
        built = [tensor.edit for shard in layout.shards for tensor in shard.tensors if tensor.edit is not None]
        self._left = Counter(self._group_of[matrix.name][0].name for matrix in built)
        self._solved: dict[str, GroupRows] = {}

    def __call__(self, matrix: MatrixEdit) -> NewRows:
        """Return the computed rows of a matrix."""
        group = self._group_of[matrix.name]
        key = group[0].name
        if key not in self._solved:
            self._solved[key] = self._solve(group)
        rows = self._solved[key][matrix.name]
        self._left[key] -= 1
        if not self._left[key]:
            del self._solved[key]
        return rows


def matrix_blocks(checkpoint: Checkpoint, edit: MatrixEdit, new: NewRows) -> Iterator[np.ndarray]:
    """Yield the rows of a matrix as raw bytes, uint8 [n, row bytes]: copied ones bit for bit, computed ones cast."""
    raw = checkpoint.raw_rows(edit.matrix.names[0], edit.matrix.axis)
    size = max(1, _ROWS_BYTES // raw.shape[1])
    dtype = edit.matrix.dtype
    return merged_blocks(edit, raw, new, size=size, compute=lambda rows: encode(rows, dtype))


def changed_tensor(edit: Edit, name: str) -> np.ndarray:
    """Return a tensor of `Edit.changed` as raw bytes, uint8 [rows, row bytes], cast once."""
    info = edit.checkpoint.tensors[name]
    old = decode(np.asarray(edit.checkpoint.raw_rows(name)), info.dtype).reshape(info.shape)
    return encode(edit.changed[name](old).reshape(info.shape[0], -1), info.dtype)


def _config_files(edit: Edit) -> dict[str, bytes]:
    """The configs as files."""
    configs = edit.configs
    files = {"config.json": json_bytes(configs.model), "tokenizer_config.json": json_bytes(configs.tokenizer)}
    if configs.generation:
        files["generation_config.json"] = json_bytes(configs.generation)
    return files


def _write_file(path: Path, content: bytes | Path) -> None:
    if isinstance(content, Path) and content.is_dir():
        shutil.copytree(content, path)
        return
    path.parent.mkdir(exist_ok=True)  # a module of sentence-transformers has a folder
    with open(path, "wb") as file:
        file.write(content if isinstance(content, bytes) else content.read_bytes())
        file.flush()
        os.fsync(file.fileno())


def _copy_whole(source: Path, target: Path, link: bool) -> None:
    if link:
        with contextlib.suppress(OSError):  # another file system, or links not allowed: copy
            os.link(source.resolve(), target)
            return
    with open(source, "rb") as reader, open(target, "wb") as writer:
        _copy_range(reader.fileno(), writer.fileno(), 0, os.fstat(reader.fileno()).st_size)
        os.fsync(writer.fileno())


def _copy_range(reader: int, writer: int, start: int, size: int) -> None:
    """Append bytes of one file to another inside the kernel where it can (and share them where the disk can)."""
    os.lseek(reader, start, os.SEEK_SET)
    while size:
        try:
            done = os.copy_file_range(reader, writer, min(size, _COPY_BYTES))
        except (AttributeError, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise
            block = os.read(reader, min(size, 8 << 20))
            done = len(block)
            while block:
                block = block[os.write(writer, block) :]
        if not done:
            raise OSError(errno.EIO, "the source ends before its header says")
        size -= done


def _write_shard(edit: Edit, shard: OutShard, target: Path, rows_of: RowsOnce, progress: Progress) -> None:
    checkpoint = edit.checkpoint
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(open(target, "wb", buffering=0))
        reader = stack.enter_context(open(shard.source.path, "rb")) if checkpoint.on_disk else None
        _write_all(writer, shard.header)
        for tensor in shard.tensors:
            if tensor.edit is not None:
                for block in matrix_blocks(checkpoint, tensor.edit, rows_of(tensor.edit)):
                    _write_all(writer, block.tobytes())
                    progress(block.nbytes)
            elif tensor.name in edit.changed:
                _write_all(writer, changed_tensor(edit, tensor.name).tobytes())
                progress(tensor.nbytes)
            elif tensor.origin is not None and reader is not None:
                _copy_range(reader.fileno(), writer.fileno(), tensor.origin.start, tensor.origin.nbytes)
                progress(tensor.nbytes)
            else:
                for content in checkpoint.blocks(tensor.name):
                    _write_all(writer, content)
                    progress(len(content))
        os.fsync(writer.fileno())


def _write_all(writer: io.FileIO, content: bytes) -> None:
    """Write to a file without a buffer, which may take less than it is given."""
    data = memoryview(content)
    while data:
        data = data[writer.write(data) :]
