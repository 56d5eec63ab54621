"""BPE, byte-level and SentencePiece: what a token is merged from, and the model of a kept set. Parsed JSON in and out.

BPE joins the pair of neighbours with the earliest merge until no merge applies. It never joins across the edge of
a token of the result, so what happens inside a token is what happens to that token alone, whatever stands around it.
Keep every symbol on that way, and all merges between kept symbols in their order, and any text whose tokens are all kept
is cut as before: at each step the earliest merge of the old model is there, and the new model has no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

_NEVER = 1 << 60


def merges_of(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the merges in their order, from either spelling: "a b" or ["a", "b"]."""
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    return [(left, right) for left, right in pairs]


def parts_of(model: Mapping[str, Any], ids: Iterable[int]) -> dict[int, tuple[int, ...]]:
    """Return for each id, and for each id on its way, the two that its last merge joins.

    () for a single character, and for a token that merges do not lead to: `ignore_merges` may still produce it where it
    is a whole word, and an added token is found before any merge.
    """
    vocab: Mapping[str, int] = model["vocab"]
    text_of = {token: text for text, token in vocab.items()}
    rank = {pair: n for n, pair in reversed(list(enumerate(merges_of(model))))}
    parts: dict[int, tuple[int, ...]] = {}
    for token in ids:
        text = text_of.get(token)
        if token in parts or text is None:
            continue
        made: dict[str, tuple[str, str]] = {}
        if _merged(text, rank, made) != [text] or not all(character in vocab for character in text):
            parts[token] = ()
            continue
        for character in text:
            parts[vocab[character]] = ()
        for whole, (left, right) in made.items():
            parts[vocab[whole]] = (vocab[left], vocab[right])
    return parts


def _merged(text: str, rank: Mapping[tuple[str, str], int], made: dict[str, tuple[str, str]]) -> list[str]:
    """Merge the characters of a text as far as they go; note in `made` what each product was joined from.

    A product that appears twice was joined from the same two both times: it is what BPE makes of it alone.
    """
    symbols = list(text)
    ranks = [rank.get(pair, _NEVER) for pair in pairwise(symbols)]
    while ranks:
        least = min(ranks)
        if least == _NEVER:
            break
        at = ranks.index(least)
        left, right = symbols[at], symbols[at + 1]
        whole = left + right
        made[whole] = (left, right)
        symbols[at : at + 2] = [whole]
        del ranks[at]
        if at:
            ranks[at - 1] = rank.get((symbols[at - 1], whole), _NEVER)
        if at < len(ranks):
            ranks[at] = rank.get((whole, symbols[at + 1]), _NEVER)
    return symbols


def rebuild(model: Mapping[str, Any], new_of: Mapping[int, int]) -> dict[str, Any]:
    """Return the model of a closed set. new_of: kept id -> new id."""
    vocab = {text: new_of[token] for text, token in model["vocab"].items() if token in new_of}
    merges = [
        merge
        for merge, (left, right) in zip(model["merges"], merges_of(model), strict=True)
        if left in vocab and right in vocab and left + right in vocab
    ]
    return {**model, "vocab": dict(sorted(vocab.items(), key=lambda item: item[1])), "merges": merges}
