"""Edit -> Plan -> apply(): the only writer of checkpoints.

An Edit says where every row of every vocabulary table comes from. `lay_out` turns it into the files that will be
written, from metadata alone. `apply` writes them: everything that is not a vocabulary table is copied as bytes, tables
are built in blocks, and the result appears under its name in one rename, or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from tokswap.checkpoint.embeddings import encode
from tokswap.checkpoint.matrices import VocabMatrix
from tokswap.checkpoint.reader import Checkpoint, Shard, TensorInfo
from tokswap.storage.atomic import workspace

_ROWS_BYTES = 16 << 20
_COPY_BYTES = 256 << 20


@dataclass(frozen=True)
class MatrixEdit:
    """One table of the result.

    table: the source table whose rows are copied. names: the tensors to write it as. source_of: int32[V_new], the
    source row of each row, -1 for the rows that are made.
    """

    matrix: VocabMatrix
    names: tuple[str, ...]
    source_of: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the table in the result."""
        rows = len(self.source_of)
        return (1, rows) if self.matrix.axis == 1 else (rows, *self.matrix.shape[1:])

    @property
    def nbytes(self) -> int:
        """Bytes of one tensor of the result."""
        return len(self.source_of) * self.matrix.row_bytes


class NewRows(Protocol):
    """The made rows of a table, float32[n, D]; an array, or what can stand for one without holding it."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Edit:
    """A change of vocabulary.

    files: name -> content, or the path of a file or folder to copy; everything in the result that is not weights.
    """

    checkpoint: Checkpoint
    matrices: tuple[MatrixEdit, ...]
    files: Mapping[str, bytes | Path]


@dataclass(frozen=True)
class OutTensor:
    """One tensor of the result: copied from `origin`, or built from `edit`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    origin: TensorInfo | None = None
    edit: MatrixEdit | None = None


@dataclass(frozen=True)
class OutShard:
    """One weight file of the result. An untouched shard is copied (or linked) whole; `header` is empty then."""

    source: Shard
    tensors: tuple[OutTensor, ...]
    header: bytes

    @property
    def untouched(self) -> bool:
        """Whether the file is the source's, byte for byte."""
        return not self.header

    @property
    def nbytes(self) -> int:
        """Size of the file."""
        return self.source.size if self.untouched else len(self.header) + sum(t.nbytes for t in self.tensors)


@dataclass(frozen=True)
class Layout:
    """Every weight file of a result."""

    shards: tuple[OutShard, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all weight files."""
        return sum(shard.nbytes for shard in self.shards)

    @property
    def parameters(self) -> int:
        """Elements of all tensors."""
        return sum(int(np.prod(tensor.shape)) for shard in self.shards for tensor in shard.tensors)


def lay_out(edit: Edit) -> Layout:
    """Return the weight files that an edit makes. Reads nothing but the headers that are open already."""
    by_name = {name: table for table in edit.matrices for name in table.names}
    touched = {name for table in edit.checkpoint.matrices for name in table.names}
    new_names = [name for name in by_name if name not in edit.checkpoint.tensors]
    home = edit.checkpoint.tensors[edit.matrices[0].matrix.names[0]].file
    shards = []
    for shard in edit.checkpoint.shards:
        names = [info.name for info in shard.tensors]
        extra = new_names if shard.path.name == home else []
        if not extra and not touched.intersection(names):
            tensors = tuple(OutTensor(i.name, i.dtype, i.shape, i.nbytes, origin=i) for i in shard.tensors)
            shards.append(OutShard(shard, tensors, b""))
            continue
        out = []
        for info in shard.tensors:
            if info.name in by_name:
                out.append(_built(info.name, by_name[info.name]))
            elif info.name not in touched:
                out.append(OutTensor(info.name, info.dtype, info.shape, info.nbytes, origin=info))
        out += [_built(name, by_name[name]) for name in extra]
        shards.append(OutShard(shard, tuple(out), _header(out, shard.metadata)))
    return Layout(tuple(shards))


def apply(
    edit: Edit,
    layout: Layout,
    out: Path,
    new_rows: Callable[[MatrixEdit], NewRows],
    *,
    link: bool = False,
    force: bool = False,
    check: Callable[[Path], object] = lambda folder: None,
    extra_files: Callable[[], Mapping[str, bytes]] = dict,
    progress: Callable[[int], object] = lambda n: None,
) -> None:
    """Write a result.

    new_rows: for a table edit, the rows whose source is -1, in order; asked once a table, when its
    shard is written. link: hard-link untouched shards. check: shown the finished folder before it takes its place; what
    it raises stops the run, and nothing is left. extra_files: asked last, just before the result appears.
    progress: told the bytes as they are written. Raises OutputError: disk-full, cannot-write, output-exists.
    """
    rows: dict[int, NewRows] = {}
    out = out.resolve()  # a link to a folder stays a link, and its folder is replaced

    left = Counter(id(tensor.edit) for shard in layout.shards for tensor in shard.tensors if tensor.edit is not None)

    def rows_of(table: MatrixEdit) -> NewRows:
        found = rows.pop(id(table)) if id(table) in rows else new_rows(table)
        left[id(table)] -= 1
        if left[id(table)]:  # let go of them with the last tensor: two large tables need not fit into memory together
            rows[id(table)] = found
        return found

    with workspace(out, force) as work:
        for name, content in edit.files.items():
            _write_file(work / name, content)
        for shard in layout.shards:
            target = work / shard.source.path.name
            if shard.untouched:
                _copy_whole(shard.source.path, target, link)
                progress(shard.nbytes)
            else:
                _write_shard(edit.checkpoint, shard, target, rows_of, progress)
        if edit.checkpoint.index is not None:
            _write_file(work / "model.safetensors.index.json", _index(edit.checkpoint, layout))
        check(work)
        for name, data in extra_files().items():
            _write_file(work / name, data)


def _built(name: str, table: MatrixEdit) -> OutTensor:
    return OutTensor(name, table.matrix.dtype, table.shape, table.nbytes, edit=table)


def _header(tensors: Sequence[OutTensor], metadata: Mapping[str, str] | None) -> bytes:
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for tensor in tensors:
        offsets = [at, at + tensor.nbytes]
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        at = offsets[1]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _index(checkpoint: Checkpoint, layout: Layout) -> bytes:
    assert checkpoint.index is not None
    metadata = dict(checkpoint.index.get("metadata") or {})
    metadata["total_size"] = sum(tensor.nbytes for shard in layout.shards for tensor in shard.tensors)
    if "total_parameters" in metadata:
        metadata["total_parameters"] = layout.parameters
    files = {tensor.name: shard.source.path.name for shard in layout.shards for tensor in shard.tensors}
    index = {**checkpoint.index, "metadata": metadata, "weight_map": dict(sorted(files.items()))}
    return json.dumps(index, indent=2).encode()


def _write_file(path: Path, content: bytes | Path) -> None:
    if isinstance(content, Path) and content.is_dir():
        shutil.copytree(content, path)
        return
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


def _write_shard(
    checkpoint: Checkpoint,
    shard: OutShard,
    target: Path,
    rows_of: Callable[[MatrixEdit], NewRows],
    progress: Callable[[int], object],
) -> None:
    with open(shard.source.path, "rb") as reader, open(target, "wb", buffering=0) as writer:
        _write_all(writer, shard.header)
        for tensor in shard.tensors:
            if tensor.origin is not None:
                _copy_range(reader.fileno(), writer.fileno(), tensor.origin.start, tensor.origin.nbytes)
                progress(tensor.nbytes)
            elif tensor.edit is not None:
                for block in _table_blocks(checkpoint, tensor.edit, rows_of(tensor.edit)):
                    _write_all(writer, block.tobytes())
                    progress(block.nbytes)
        os.fsync(writer.fileno())


def _write_all(writer: io.FileIO, content: bytes) -> None:
    """Write to a file without a buffer, which may take less than it is given."""
    data = memoryview(content)
    while data:
        data = data[writer.write(data) :]


def _table_blocks(checkpoint: Checkpoint, edit: MatrixEdit, made: NewRows) -> Iterator[np.ndarray]:
    """Yield the rows of a table as raw bytes, uint8[n, row bytes]: copied rows bit for bit, made rows cast once.

    In a per-layer table a source id past its end stands for row 0: Gemma-3n, whose per-layer table is the shorter
    one, reads that row for the tokens of pictures and sound.
    """
    raw = checkpoint.raw_rows(edit.matrix.names[0], edit.matrix.axis)
    needed = int(np.count_nonzero(edit.source_of < 0))
    if len(made) != needed:
        raise ValueError(f"{needed} rows of {edit.names[0]} have no source, and {len(made)} were made")
    width = raw.shape[1]
    step = max(1, _ROWS_BYTES // width)
    used = 0
    for start in range(0, len(edit.source_of), step):
        source = edit.source_of[start : start + step]
        block = np.empty((len(source), width), np.uint8)
        copied = source >= 0
        if edit.matrix.role == "per-layer":
            source = np.where(source < len(raw), source, 0)
        block[copied] = raw[source[copied]]
        count = int(np.count_nonzero(~copied))
        if count:
            block[~copied] = encode(made[used : used + count], edit.matrix.dtype)
            used += count
        yield block


def untied(table: MatrixEdit, head: str) -> tuple[MatrixEdit, MatrixEdit]:
    """Split a tied table into an input table under its old names and an output table named `head`."""
    return replace(table, matrix=replace(table.matrix, is_head=False)), MatrixEdit(
        replace(table.matrix, role="output", is_head=False), (head,), table.source_of
    )
