"""Which tokens a reduced draft head has: those that cover most of a corpus, and how much of other texts they cover."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np

from tokswap.errors import InputError, UsageError
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.trim.corpora import Counts, count, find_corpus

_SIZES = tuple(1 << power for power in range(8, 21))
"""Sizes of heads whose coverage is told, besides the size that was asked for."""

Texts = Sequence[Counts]


@dataclass(frozen=True, eq=False)
class HeadChoice:
    """The tokens of a reduced head.

    Attributes:
        ids: Their ids, ascending (int64 [N]).
        coverage: Name of a text -> number of tokens -> share of the text's tokens that a head of that size has.
        counted: How many of the tokens occur in the corpus.
        unused: How many of the tokens neither occur in the corpus nor end a text.
    """

    ids: np.ndarray
    coverage: Mapping[str, Mapping[int, float]]
    counted: int
    unused: int


def choose_head(
    tokenizer: Tokenizer, size: int, known: np.ndarray, *, needed: Iterable[int], texts: tuple[Texts, Texts]
) -> HeadChoice:
    """Choose the tokens of a head.

    Args:
        tokenizer: The target's tokenizer.
        size: How many tokens.
        known: Ids that can be chosen.
        needed: Those of them that every head has: the ends of a text.
        texts: What the tokens are chosen by, and what coverage is told of.

    Raises:
        UsageError: bad-head-size.
    """
    first = np.intersect1d(np.fromiter(needed, np.int64), known)
    if not len(first) <= size <= len(known):
        raise UsageError(
            "bad-head-size",
            f"--size must be between {max(1, len(first)):,} and {len(known):,}, not {size:,}",
            f"{len(known):,} tokens can be proposed, and {len(first)} of them end a text and are always kept",
        )
    total = np.stack([one.counts for one in texts[0]]).sum(axis=0)
    unreachable = tokenizer.vocabulary.unreachable[known] & (total[known] == 0)
    order = known[np.lexsort((known, unreachable, -total[known]))]  # by occurrences, then id; what is never made last
    ranked = np.concatenate([first, order[~np.isin(order, first)]])
    sizes = sorted({size, *takewhile(lambda n: n < len(known), _SIZES)})
    coverage = {
        text.name: {n: float(text.counts[ranked[:n]].sum() / text.counts.sum()) for n in sizes} for text in texts[1]
    }
    ids = np.sort(ranked[:size])
    unused = (total[ids] == 0) & ~np.isin(ids, first)
    return HeadChoice(ids, coverage, counted=int(np.count_nonzero(total[ids])), unused=int(unused.sum()))


def read_texts(names: Sequence[str | Path], tokenizer: Tokenizer, field: str) -> list[Counts]:
    """Count the tokens of texts, each on its own.

    Raises:
        InputError: missing-corpus, empty-corpus.
    """
    found = [count(find_corpus(name), tokenizer, key=field) for name in names]
    for one in found:
        if not one.total:
            raise InputError("empty-corpus", f"`{one.name}` has no text", "name another file")
    return found
