"""Ids that stand for the same text: the tokenizer gives one of them, and never the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from tokswap.evaluation.checks import Check, check_empty
from tokswap.evaluation.verify.folder import Folder
from tokswap.evaluation.verify.texts import decode_all
from tokswap.evaluation.verify.weights import Weights
from tokswap.report.provenance import Provenance
from tokswap.report.record import REPORT_NAME

_CONTEXTS = (".", "a", "\n", "0", "")
"""What stands before a token, so that none is tokenized as the beginning of a text alone."""


def twins(folder: Folder) -> dict[int, int]:
    """Find the ids that no text gives, because another id stands for the same text.

    Such are model tokens that an added token shadows, and byte tokens of a byte that has a piece.

    Args:
        folder: A folder with a tokenizer.

    Returns:
        Id -> the id that the text gives instead.
    """
    ids = [token for token, text in enumerate(folder.vocabulary) if text is not None]
    before = folder.encode(".") if folder.reads_text else []
    if not before or not getattr(folder.tokenizer, "is_fast", False):
        return {}
    lead = len(decode_all(folder, [before])[0])
    by_text: dict[str, list[int]] = defaultdict(list)
    for token, text in zip(ids, decode_all(folder, [[*before, token] for token in ids]), strict=True):
        if len(text) > lead and "\ufffd" not in text:
            by_text[text[lead:]].append(token)
    found: dict[int, int] = {}
    for text, same in by_text.items():
        if len(same) > 1:
            given = [token for token in same if token in _given(folder, text)]
            found |= {token: given[0] for token in same if given and token not in given}
    return found


def _given(folder: Folder, text: str) -> set[int]:
    """The tokens that a text is, in one of the contexts."""
    found = set()
    for context in _CONTEXTS:
        before, whole = folder.encode(context), folder.encode(context + text)
        if whole[:-1] == before and whole:
            found.add(whole[-1])
    return found


def copy_check(
    folder: Folder, source: Folder, weights: Weights, provenance: Provenance, same: Mapping[int, int]
) -> Check:
    """Check that rows come from ids that the source model has really read, and that no unused id shares a row.

    Args:
        folder: The result of a transplant.
        source: Its source model.
        weights: The weights of the result.
        provenance: Where its rows come from.
        same: The `twins` of the result.
    """
    import torch

    name, source_of = "rows of unused ids", provenance.source_of
    if len(source_of) != weights.rows:
        return Check(name, True, f"not tried: no {REPORT_NAME} says which rows were copied")
    there = twins(source)
    copied = np.flatnonzero(provenance.has_reason("bytes"))
    wrong = [
        f"{token} {folder.vocabulary[token]!r} has the row of {old}, which no text gives; it gives {there[old]}"
        for token, old in zip(copied.tolist(), source_of[copied].tolist(), strict=True)
        if old in there and token not in same
    ]
    head = weights.embeddings.get("output", weights.embeddings["input"])
    # A token that the source cannot spell has no other row to get than the neutral one.
    neutral = head[np.flatnonzero(provenance.never_predicted)[:1]]
    wrong += [
        f"{token} {folder.vocabulary[token]!r}, which no text gives, has the row of {given}"
        for token, given in same.items()
        if max(token, given) < len(head)
        and torch.equal(head[token], head[given])
        and not (len(neutral) and torch.equal(head[given], neutral[0]))
    ]
    fine = f"{len(same):,} ids that no text gives have rows of their own; no row is one of the source's {len(there):,}"
    return check_empty(name, "wrong", wrong, fine)
