"""Which ids do not mean the same to all members. Only tokenizers are read, so this comes before a model is loaded."""

from __future__ import annotations

import numpy as np

from tokswap.ensemble.members import Ensemble
from tokswap.errors import InputError, count_of
from tokswap.report.wording import listed
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer


def check_agreement(ensemble: Ensemble) -> None:
    """Refuse members to which an id does not mean the same.

    Raises:
        InputError: members-disagree.
    """
    tokenizers = [read_tokenizer(ensemble.path_of(member)) for member in ensemble.members]
    first = ensemble.members[0].name
    for member, tokenizer in zip(ensemble.members[1:], tokenizers[1:], strict=True):
        found = differences(tokenizers[0], tokenizer)
        if found:
            raise InputError(
                "members-disagree",
                f"{first} and {member.name} differ in {count_of(len(found), 'id')}: {listed(found)}",
                "a mean needs one vocabulary: `tokswap ensemble prepare` puts the members on one",
                folder=ensemble.folder,
            )


def differences(first: Tokenizer, second: Tokenizer) -> list[str]:
    """Return each id that means something else to two tokenizers, with what it is to each."""
    a, b = first.vocabulary, second.vocabulary
    longest = max(len(a), len(b))
    texts = [[*v.text, *[""] * (longest - len(v))] for v in (a, b)]
    kinds = [np.concatenate([v.kind, np.full(longest - len(v), -1)]).tolist() for v in (a, b)]
    found = []
    for token in range(longest):
        if texts[0][token] != texts[1][token]:
            shown = [repr(text[token]) if text[token] else "nothing" for text in texts]
            found.append(f"{token} is {shown[0]} and {shown[1]}")
        elif kinds[0][token] != kinds[1][token]:
            found.append(f"{token} ({texts[0][token]!r}) is a special token to only one of them")
    return found
