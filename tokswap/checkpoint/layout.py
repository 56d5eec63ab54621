"""The weight files of a result, known from metadata alone: which tensor goes where, and how many bytes it takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from tokswap.checkpoint.edit import Edit, MatrixEdit
from tokswap.checkpoint.reader import Checkpoint
from tokswap.checkpoint.shards import Shard, TensorInfo


@dataclass(frozen=True)
class OutTensor:
    """One tensor of the result: copied from `origin` (changed where `Edit.changed` has it) or built from `edit`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    origin: TensorInfo | None = None
    edit: MatrixEdit | None = None


@dataclass(frozen=True)
class OutShard:
    """One weight file of the result. An untouched shard is copied (or linked) whole and has an empty `header`."""

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
        return sum(prod(tensor.shape) for shard in self.shards for tensor in shard.tensors)

    def written(self, link: bool) -> int:
        """Return the new bytes on disk. link: whether untouched files are hard-linked."""
        return sum(shard.nbytes for shard in self.shards if not (link and shard.untouched))


def lay_out(edit: Edit) -> Layout:
    """Return the weight files that an edit makes. Reads nothing but the headers that are open already."""
    by_name = {name: matrix for matrix in edit.matrices for name in matrix.names}
    touched = {name for matrix in edit.checkpoint.matrices for name in matrix.names}
    new_names = [name for name in by_name if name not in edit.checkpoint.tensors]
    home = edit.checkpoint.tensors[edit.matrices[0].matrix.names[0]].file
    shards = []
    for shard in edit.checkpoint.shards:
        names = [info.name for info in shard.tensors]
        extra = new_names if shard.path.name == home else []
        if not extra and not touched.intersection(names) and not edit.changed.keys() & names:
            shards.append(OutShard(shard, tuple(map(_copied, shard.tensors)), b""))
            continue
        out = []
        for info in shard.tensors:
            if info.name in by_name:
                out.append(_built(info.name, by_name[info.name]))
            elif info.name not in touched:
                out.append(_copied(info))
        out += [_built(name, by_name[name]) for name in extra]
        shards.append(OutShard(shard, tuple(out), _header(out, shard.metadata)))
    return Layout(tuple(shards))


def index_of(checkpoint: Checkpoint, layout: Layout) -> bytes:
    """Return the index of a result's weight files."""
    old = checkpoint.weights.index
    assert old is not None
    metadata = dict(old.get("metadata") or {})
    metadata["total_size"] = sum(tensor.nbytes for shard in layout.shards for tensor in shard.tensors)
    if "total_parameters" in metadata:
        metadata["total_parameters"] = layout.parameters
    files = {tensor.name: shard.source.path.name for shard in layout.shards for tensor in shard.tensors}
    index = {**old, "metadata": metadata, "weight_map": dict(sorted(files.items()))}
    return json.dumps(index, indent=2).encode()


def _copied(info: TensorInfo) -> OutTensor:
    return OutTensor(info.name, info.dtype, info.shape, nbytes=info.nbytes, origin=info)


def _built(name: str, edit: MatrixEdit) -> OutTensor:
    return OutTensor(name, edit.matrix.dtype, edit.shape, nbytes=edit.nbytes, edit=edit)


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
