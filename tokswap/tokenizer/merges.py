"""The merges of a BPE model, and the two tokens that each token is joined from. Pure: parsed JSON in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tokswap.tokenizer.vocabulary import Kind, Vocabulary


def merges_of(model: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the merge pairs of a BPE model in their order, from either notation: "a b" or ["a", "b"]."""
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield left, right


def bpe_pairs(model: Mapping[str, Any], size: int) -> np.ndarray:
    """Find the merge pair of each token of a BPE model: its earliest merge.

    Args:
        model: The `model` of a tokenizer.json.
        size: The number of ids.

    Returns:
        The two ids that each token is merged from, or -1 (int32 [V, 2]).
    """
    vocab = model["vocab"]
    pairs = np.full((size, 2), -1, np.int32)
    for left, right in reversed(list(merges_of(model))):
        if left in vocab and right in vocab and left + right in vocab:
            pairs[vocab[left + right]] = vocab[left], vocab[right]
    return pairs


def longest_prefix_pairs(vocabulary: Vocabulary) -> np.ndarray:
    """Split each token of a model without merges: after the longest token that it begins with.

    Args:
        vocabulary: The vocabulary. Only normal tokens are split, and only where the rest is a token too.

    Returns:
        The two ids that each token is joined from, or -1 (int32 [V, 2]).
    """
    ids = vocabulary.id_of
    pairs = np.full((len(vocabulary), 2), -1, np.int32)
    for token in np.flatnonzero(vocabulary.kind == Kind.NORMAL).tolist():
        whole = vocabulary.token_bytes[token]
        for end in range(len(whole) - 1, 0, -1):
            if whole[:end] in ids and whole[end:] in ids:
                pairs[token] = ids[whole[:end]], ids[whole[end:]]
                break
    return pairs
