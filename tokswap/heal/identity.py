"""What tells a model from others: names of cached work are made of it."""

from __future__ import annotations

import hashlib

from tokswap.checkpoint.source import SourceModel
from tokswap.storage.digests import digest_of


def identity(model: SourceModel, *, by_content: bool = False) -> str:
    """Return what tells the weights and the config of a model from others.

    Args:
        model: The model. One in memory is known by its content, since it has no file and no lasting name.
        by_content: Whether files are known by their content too, not by their place and time.
    """
    checkpoint = model.checkpoint
    if model.loaded is not None:
        blocks = (block for name in checkpoint.tensors for block in checkpoint.blocks(name))
        weights: list[object] = [hashlib.sha256(block).hexdigest() for block in blocks]
    elif by_content:
        weights = [digest_of(shard.path) for shard in checkpoint.shards]
    else:
        files = [(shard.path.resolve(), shard.path.stat()) for shard in checkpoint.shards]
        weights = [(str(path), found.st_size, found.st_mtime_ns) for path, found in files]
    return repr((weights, sorted(checkpoint.config.items())))
