"""Tokens that a model has hardly been trained on, by the rows of its embedding matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokswap.checkpoint.embeddings import Columns, EmbeddingSpace
from tokswap.checkpoint.loaded import ModelLike
from tokswap.checkpoint.source import open_source
from tokswap.options.kinds import typed
from tokswap.tokenizer.vocabulary import Kind

_NAMED = 20
_SHARE = 0.02
"""Share of the tokens of text that are reported, at most: below it the indicator says little."""
_LIKE_UNUSED = 0.9
"""Quantile of the indicator of unused tokens up to which a token counts as one of them."""
_FAR = 5.0
"""Without unused tokens: how many deviations below the median an indicator must be."""


@typed
def undertrained_tokens(model: ModelLike) -> dict[str, Any]:
    """Find tokens of text whose rows look as those of tokens that were never trained on.

    Tied embeddings are judged as an lm_head: tokens that never occur are all pushed the same way, so the indicator is
    the cosine distance of a row from the mean row of unused tokens. Input embeddings of their own only change when
    their token is read, so there the indicator is their norm.

    Args:
        model: A folder, hub id, alias or .gguf file, or a loaded model with its tokenizer.

    Returns:
        Plain data: "tied"; "indicator", "distance" or "norm"; "unused", how many reserved, unreachable and padding rows
        it is compared with; "count"; and "tokens", some of the tokens found, the surest first.

    Raises:
        InputError: what reading a model raises.

    Reference: arXiv 2405.05417 (magikarp)
    """
    source = open_source(model)
    checkpoint, vocabulary = source.checkpoint, source.tokenizer.vocabulary
    matrix = checkpoint.matrices[0]
    space = EmbeddingSpace(vocabulary, [Columns(checkpoint.raw_rows(matrix.names[0], matrix.axis), matrix.dtype)])
    return {"tied": checkpoint.tied, **indicate(space, by_distance=checkpoint.tied)}


def indicate(space: EmbeddingSpace, *, by_distance: bool) -> dict[str, Any]:
    """Do what `undertrained_tokens` does, with the rows of one matrix.

    Args:
        space: The rows, padding rows included.
        by_distance: Whether the indicator is the distance from unused rows, where there are some; else the norm.
    """
    vocabulary, rows = space.vocabulary, len(space)
    text = np.flatnonzero(vocabulary.pieces)
    unknown = vocabulary.unreachable | (vocabulary.kind == Kind.UNUSED)
    unused = np.concatenate([np.flatnonzero(unknown), np.arange(len(vocabulary), rows)])
    if by_distance:
        unused = unused[space.norms(unused) > 0]
    by_distance = by_distance and len(unused) > 0
    if by_distance:
        mean = space.mean(np.arange(rows))
        goal = space.mean(unused) - mean
        found, own = (_distances(space, ids, mean, goal) for ids in (text, unused))
    else:
        found, own = space.norms(text), space.norms(unused)
    if len(unused):
        limit = float(np.quantile(own, _LIKE_UNUSED))
    else:
        spread = 1.4826 * float(np.median(np.abs(found - np.median(found))))
        limit = float(np.median(found)) - _FAR * spread
    order = np.argsort(found, kind="stable")
    order = order[found[order] <= limit][: max(int(_SHARE * len(text)), 1)]
    return {
        "indicator": "distance" if by_distance else "norm",
        "unused": len(unused),
        "count": len(order),
        "tokens": [vocabulary.readable(token) for token in text[order[:_NAMED]].tolist()],
    }


def _distances(space: EmbeddingSpace, ids: np.ndarray, mean: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Return the cosine distance of rows, after the mean row is taken away, from a goal (float64 [n])."""
    parts = [np.zeros(0)]
    for block in space.blocks(ids):
        centred = block - mean
        norms = np.linalg.norm(centred, axis=1) * np.linalg.norm(goal)
        parts.append(1 - centred @ goal / np.maximum(norms, 1e-12))
    return np.concatenate(parts)
