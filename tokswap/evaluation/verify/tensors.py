"""Compares the tensors of a loaded result with those of its source model, row by row and bit by bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tokswap.errors import count_of
from tokswap.evaluation.checks import Check, check_empty
from tokswap.evaluation.verify.folder import Folder
from tokswap.evaluation.verify.weights import Weights
from tokswap.report.provenance import Provenance
from tokswap.report.record import REPORT_NAME
from tokswap.storage.json_files import read_json

_BLOCK_ROWS = 8192


def source_checks(
    after: Weights, before: Weights, provenance: Provenance, folders: tuple[Folder, Folder]
) -> Iterator[Check]:
    """Compare copied rows, and all tensors that hold none, with those of the source model.

    Args:
        after: The weights of the result.
        before: Those of its source model.
        provenance: Where the rows come from.
        folders: The folders of both.
    """
    axes = {name: before.token_axis(name, before.rows) for name in before.tensors}
    matrices = [name for name, axis in axes.items() if _counts_tokens(after, before, name, axis)]
    dropped = _dropped_head(after, before, provenance)
    yield _copied_check(after, before, [name for name in matrices if name not in dropped], provenance)
    others = [name for name in before.tensors if name not in matrices]
    gone = after.missing - before.missing  # transformers fills these with random numbers
    lost = [name for name in before.tensors if name not in after.tensors or name in gone]
    healed = [name for name in others if _is_named(name, provenance.healed)]
    compared = [name for name in others if name not in (*lost, *healed)]
    changed = [name for name in compared if not _same_bits(after.tensors[name], before.tensors[name])]
    unread = _unread_problems(before, folders)
    lost += unread["lost"]
    changed += [name for name in unread["changed"] if not _is_named(name, provenance.healed)]
    yield check_empty("no tensor lost", "missing", lost, f"{count_of(len(before.tensors), 'tensor')}")
    fine = f"{len(compared)} are unchanged, bit for bit" + (f"; healing changed {len(healed)}" * bool(healed))
    yield check_empty("other tensors", "changed", changed, fine)


def _counts_tokens(after: Weights, before: Weights, name: str, axis: int | None) -> bool:
    """Whether a tensor has a row for each token. One that keeps its size beside others has a vocabulary of its own."""
    if name not in after.tensors:
        return False
    new, old = after.tensors[name].shape, before.tensors[name].shape
    if new == old:
        return axis is not None and after.rows == before.rows
    return axis is not None or len(new) == len(old)


def _dropped_head(after: Weights, before: Weights, provenance: Provenance) -> set[str]:
    """The names of the source's lm_head where the user has tied the result: it is the input embeddings now."""
    if dict(provenance.plan.get("options") or {}).get("tie") is not True or "output" in after.embeddings:
        return set()
    head = before.embeddings.get("output")
    return {
        name for name, tensor in before.tensors.items() if head is not None and tensor.data_ptr() == head.data_ptr()
    }


def _copied_check(after: Weights, before: Weights, matrices: list[str], provenance: Provenance) -> Check:
    source_of = provenance.source_of
    if len(source_of) != after.rows:
        return Check("copied rows", False, f"no {REPORT_NAME} says which rows were copied")
    changed = {after.tensors[name].data_ptr() for name in after.tensors if _is_named(name, provenance.healed)}
    compared = [name for name in matrices if after.tensors[name].data_ptr() not in changed]
    wrong = [name for name in compared if not _rows_equal(after.tensors[name], before.tensors[name], source_of)]
    rows = count_of(int((source_of >= 0).sum()), "row")
    trained = [name for name in matrices if _is_named(name, provenance.healed)]
    said = [f"{rows} in {count_of(len(compared), 'tensor')} equal the source's, bit for bit"] if compared else []
    said += [f"healing changed every row of {', '.join(trained)}"] if trained else []
    return check_empty("copied rows", "differ from the source", wrong, "; ".join(said))


def _is_named(name: str, names: tuple[str, ...]) -> bool:
    return any(name == other or name.endswith(f".{other}") for other in names)


def _rows_equal(new: Any, old: Any, source_of: np.ndarray) -> bool:
    """Whether every copied row of a tensor equals its source row, along the axis that counts tokens."""
    import torch

    if new.dtype != old.dtype:
        return False
    axis = next((n for n, sizes in enumerate(zip(new.shape, old.shape, strict=True)) if sizes[0] != sizes[1]), None)
    axis = list(new.shape).index(len(source_of)) if axis is None else axis
    ids = np.flatnonzero((source_of >= 0) & (source_of < old.shape[axis]))
    ids = ids[ids < new.shape[axis]]
    for start in range(0, len(ids), _BLOCK_ROWS):
        block = ids[start : start + _BLOCK_ROWS]
        left = new.index_select(axis, torch.from_numpy(block))
        right = old.index_select(axis, torch.from_numpy(source_of[block]))
        if not _same_bits(left, right):
            return False
    return True


def _same_bits(left: Any, right: Any) -> bool:
    import torch

    if (left.dtype, left.shape) != (right.dtype, right.shape):
        return False
    raw = (tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (left, right))
    return bool(torch.equal(*raw)) if left.numel() else True


def _unread_problems(before: Weights, folders: tuple[Folder, Folder]) -> dict[str, list[str]]:
    """Compare the tensors that lie in the source's files and that its class does not load under their names."""
    here, there = (_stored(folder) for folder in folders)
    found: dict[str, list[str]] = {"lost": [], "changed": []}
    for name in sorted(set(there) - set(before.tensors)):
        if before.rows in there[name].get_slice(name).get_shape():
            continue  # a copy of a vocabulary matrix, or one of a part that transformers does not load
        if name not in here:
            found["lost"].append(name)
        elif not _same_bits(here[name].get_tensor(name), there[name].get_tensor(name)):
            found["changed"].append(name)
    return found


def _stored(folder: Folder) -> Mapping[str, Any]:
    """Name of a tensor -> its open safetensors file; of two sets of weights, the one that transformers loads."""
    from safetensors import safe_open

    first = folder.path / str(folder.config.get("transformers_weights") or "model.safetensors")
    index = first if first.suffix == ".json" else folder.path / "model.safetensors.index.json"
    files = [first]
    if first == index or not first.is_file():
        named = read_json(index, "index")["weight_map"].values() if index.is_file() else []
        files = sorted({folder.path / str(name) for name in named})
    opened = [safe_open(path, framework="pt") for path in files if path.is_file()]
    return {name: file for file in opened for name in file.offset_keys()}  # type: ignore[no-untyped-call]
