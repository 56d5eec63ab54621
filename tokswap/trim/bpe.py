"""BPE, byte-level and SentencePiece: the merge dependencies of a token, and the model of a kept set.

Pure: parsed JSON in, parsed JSON out. `unigram` and `wordpiece` have functions of the same names.

Why a trimmed BPE model tokenizes as before: BPE applies the earliest merge until no merge applies. No merge crosses
the edge of a token of the result, so the merges inside a token do not depend on the text around it. All symbols on the
way to a kept token stay, and all merges between kept symbols stay in their order. So at each step the earliest merge
of the old model is still there, and the new model has no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from tokswap.tokenizer.merges import merges_of

_NEVER = 1 << 60
"""Rank of a pair that no merge joins."""


def parts_of(model: Mapping[str, Any], ids: Iterable[int]) -> dict[int, tuple[int, ...]]:
    """Find the merge pair of each token, and of each token on the way to it.

    Args:
        model: The `model` of a tokenizer.json.
        ids: Token ids.

    Returns:
        Id -> the two ids that its last merge joins. A single character has none. Nor has a token that merges do not
        lead to: `ignore_merges` can still produce it as a whole word, and the tokenizer finds an added token before any
        merge.
    """
    vocab: Mapping[str, int] = model["vocab"]
    text_of = {token: text for text, token in vocab.items()}
    rank = {pair: n for n, pair in reversed(list(enumerate(merges_of(model))))}
    parts: dict[int, tuple[int, ...]] = {}
    for token in ids:
        text = text_of.get(token)
        if token in parts or text is None:
            continue
        symbols, pairs = merged(text, rank)
        if symbols == [text] and all(character in vocab for character in text):
            parts |= {vocab[whole]: (vocab[left], vocab[right]) for whole, (left, right) in pairs.items()}
    return parts


def rebuild(model: Mapping[str, Any], new_of: Mapping[int, int]) -> dict[str, Any]:
    """Return the model of a closed set.

    Args:
        model: The `model` of a tokenizer.json.
        new_of: Kept id -> new id.
    """
    vocab = {text: new_of[token] for text, token in model["vocab"].items() if token in new_of}
    merges = [
        merge
        for merge, (left, right) in zip(model["merges"], merges_of(model), strict=True)
        if left in vocab and right in vocab and left + right in vocab
    ]
    return {**model, "vocab": dict(sorted(vocab.items(), key=lambda item: item[1])), "merges": merges}


def merged(text: str, rank: Mapping[tuple[str, str], int]) -> tuple[list[str], dict[str, tuple[str, str]]]:
    """Merge the characters of a text as far as possible.

    A product that appears twice has the same merge pair both times: the one that BPE takes for it alone.

    Args:
        text: The text, as the model spells it.
        rank: Merge pair -> its place among the merges.

    Returns:
        The symbols that are left, and product -> merge pair.
    """
    symbols = list(text)
    pairs: dict[str, tuple[str, str]] = {}
    ranks = [rank.get(pair, _NEVER) for pair in pairwise(symbols)]
    while ranks:
        least = min(ranks)
        if least == _NEVER:
            break
        at = ranks.index(least)
        left, right = symbols[at], symbols[at + 1]
        whole = left + right
        pairs[whole] = (left, right)
        symbols[at : at + 2] = [whole]
        del ranks[at]
        if at:
            ranks[at - 1] = rank.get((symbols[at - 1], whole), _NEVER)
        if at < len(ranks):
            ranks[at] = rank.get((whole, symbols[at + 1]), _NEVER)
    return symbols, pairs
