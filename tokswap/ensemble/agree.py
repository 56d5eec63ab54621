"""Which ids do not mean the same to all members. Reads tokenizers alone, so that it can be asked before a model is loaded."""

from __future__ import annotations

import numpy as np

from tokswap.ensemble.members import Ensemble
from tokswap.errors import InputError
from tokswap.report.wording import listed
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer

_SHOWN = 5


def check_agreement(ensemble: Ensemble) -> None:
    """Raise InputError members-disagree where an id does not mean the same to all members. Reads tokenizers alone."""
    tokenizers = [read_tokenizer(ensemble.path_of(member)) for member in ensemble.members]
    for member, tokenizer in zip(ensemble.members[1:], tokenizers[1:], strict=True):
        found = differences(tokenizers[0], tokenizer)
        if found:
            raise InputError(
                "members-disagree",
                f"{len(found):,} ids do not mean the same to {ensemble.members[0].name} and {member.name}: {listed(found)}",
                "averages need one vocabulary: `tokswap ensemble prepare` puts the members on one",
                folder=ensemble.folder,
            )


def differences(first: Tokenizer, second: Tokenizer) -> list[str]:
    """Each id that the two do not agree on, and what it is to each."""
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
            found.append(f"{token} ({texts[0][token]!r}) is a control token to one of them")
    return found
