"""The layout of a reduced draft head, as EAGLE-3 has it, and whether an existing one holds together.

`lm_head.weight` has a row for each of N tokens. Row i stands for the target's id `i + d2t[i]` (int64 [N], ids
ascending). `t2d` (bool [V]) says which of the target's ids have a row; engines do without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.checkpoint.reader import open_checkpoint
from tokswap.errors import InputError
from tokswap.evaluation.checks import Check
from tokswap.storage.json_files import read_json
from tokswap.storage.resolve import resolve_model

HEAD, TO_TARGET, TO_DRAFT = "lm_head.weight", "d2t", "t2d"
_HINT = "give the folder of a draft head, or of a model with an lm_head, in safetensors"


@dataclass(frozen=True)
class HeadFiles:
    """A checkpoint with a head, opened without reading a weight.

    Attributes:
        folder: Its folder.
        config: config.json, parsed.
        files: Name of a tensor -> its file.
    """

    folder: Path
    config: Mapping[str, Any]
    files: Mapping[str, Path]

    @property
    def reduced(self) -> bool:
        """Whether the head has a map to the target's ids."""
        return TO_TARGET in self.files

    @property
    def is_draft_head(self) -> bool:
        """Whether this is a draft head such as EAGLE's, and no whole model."""
        names = " ".join(self.config.get("architectures") or []).lower()
        return self.reduced or "draft_vocab_size" in self.config or "eagle" in names

    @cached_property
    def head(self) -> str:
        """The tensor that holds the head: lm_head, or the input embeddings of a whole model that it is tied to.

        Raises:
            InputError: bad-draft-head, and what reading a checkpoint raises.
        """
        if HEAD in self.files:
            return HEAD
        if self.is_draft_head:
            message = "this draft head has no lm_head: it uses that of its target, and nothing of it can be reduced"
            hint = "give the target as --model: SGLang takes the token map of that (hot_token_ids.pt) for such a head"
            raise InputError("bad-draft-head", message, hint, folder=self.folder)
        matrices = open_checkpoint(self.folder).matrices
        heads = [one for one in matrices if (one.role == "output" or one.is_head) and one.axis == 0]
        found = [name for one in heads for name in one.names if name in self.files]
        if not found:
            raise InputError("bad-draft-head", "there is no lm_head here", _HINT, folder=self.folder)
        return found[0]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        from safetensors import safe_open

        with safe_open(self.files[name], "pt") as file:
            return tuple(file.get_slice(name).get_shape())

    def read(self, name: str) -> Any:
        """Return a tensor (torch)."""
        from safetensors import safe_open

        with safe_open(self.files[name], "pt") as file:
            return file.get_tensor(name)


def open_head(name: str | Path) -> HeadFiles:
    """Open a draft head, or a model whose head is to be reduced.

    Raises:
        InputError: bad-draft-head, missing-config, bad-config, and what a model name raises.
    """
    from safetensors import SafetensorError, safe_open

    folder = resolve_model(str(name))
    config = read_json(folder / "config.json", "config")
    files: dict[str, Path] = {}
    try:
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                files |= dict.fromkeys(file.keys(), path)
    except (SafetensorError, OSError) as error:
        raise InputError("bad-draft-head", f"a weight file is damaged: {error}", _HINT, file=path) from error
    if not files:
        raise InputError("bad-draft-head", "there are no weights in safetensors here", _HINT, folder=folder)
    return HeadFiles(folder, config, files)


def check_matrix(head: HeadFiles) -> None:
    """Raise InputError bad-draft-head for an lm_head that is not exactly one matrix of weights."""
    if len(head.shape(head.head)) != 2:
        raise InputError("bad-draft-head", f"{head.head} is not a matrix", _HINT, folder=head.folder)
    module = head.head.removesuffix("weight")
    more = sorted(name for name in head.files if name.startswith(module) and name != head.head)
    if more:
        message = f"a reduced head is a matrix alone, and this one has {', '.join(more)} too"
        hint = "give a model whose lm_head has no bias and is not quantised"
        raise InputError("bad-draft-head", message, hint, folder=head.folder)


def target_ids(head: HeadFiles) -> np.ndarray:
    """Return the target's id of each row of a head (int64 [N])."""
    rows = np.arange(head.shape(head.head)[0], dtype=np.int64)
    return rows + np.asarray(head.read(TO_TARGET).numpy(), np.int64) if head.reduced else rows


def check_head(head: HeadFiles, target_size: int | None = None) -> list[Check]:
    """Check that the maps of a reduced head hold together.

    Args:
        head: The head.
        target_size: The target's vocab_size, where it is known; else the length of `t2d`.

    Raises:
        InputError: bad-draft-head, where there are no maps, or maps of another kind.
    """
    if not {HEAD, TO_TARGET} <= head.files.keys():
        raise InputError("bad-draft-head", f"there are no {HEAD} and {TO_TARGET}", _HINT, folder=head.folder)
    check_matrix(head)
    maps = [head.read(name) for name in (TO_TARGET, TO_DRAFT) if name in head.files]
    if any(one.ndim != 1 or one.is_floating_point() for one in maps):
        raise InputError("bad-draft-head", "d2t and t2d are not lists of offsets and flags", _HINT, folder=head.folder)
    offsets, *known = (one.numpy() for one in maps)
    ids = np.arange(len(offsets), dtype=np.int64) + offsets.astype(np.int64)
    size = target_size or (len(known[0]) if known else _size_by_config(head, ids))
    inside = ids[(ids >= 0) & (ids < size)]
    rows, named = head.shape(HEAD)[0], head.config.get("draft_vocab_size")
    outside, twice = len(ids) - len(inside), len(ids) - len(np.unique(ids))
    ascend = bool((np.diff(ids) > 0).all())
    checks = [
        Check("rows", rows == len(offsets), f"lm_head has {rows:,} rows, d2t {len(offsets):,} entries"),
        Check("draft_vocab_size", named == len(offsets), f"config.json says {named}, d2t has {len(offsets):,} entries"),
        Check("range", not outside, f"{outside:,} ids of d2t are outside the target's {size:,}"),
        Check("unique", not twice, f"{twice:,} rows stand for an id that has one already"),
        Check("order", ascend, f"ids {'' if ascend else 'do not '}ascend with the rows"),
    ]
    for flags in known:
        apart = len(np.setxor1d(np.unique(ids), np.flatnonzero(flags.astype(bool))))
        has = f"t2d has {len(flags):,} entries, the target {size:,} ids"
        checks.append(Check("target size", len(flags) == size, has))
        checks.append(Check("agreement", not apart, f"d2t and t2d disagree about {apart:,} ids"))
    return checks


def _size_by_config(head: HeadFiles, ids: np.ndarray) -> int:
    """Return the target's number of ids from the config, or else the smallest number that fits the ids."""
    named = head.config.get("vocab_size")
    return named if type(named) is int else int(ids.max(initial=-1)) + 1
