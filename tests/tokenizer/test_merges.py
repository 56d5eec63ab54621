from __future__ import annotations

from collections.abc import Callable

import makers
import pytest

from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind


@pytest.mark.parametrize("family", makers.FAMILIES)
def test_merge_pairs_join_to_their_token(family: str, read: Callable[..., Tokenizer]) -> None:
    tokenizer = read(family)
    token_bytes, pairs = tokenizer.vocabulary.token_bytes, tokenizer.merge_pairs()
    assert pairs.shape == (len(tokenizer.vocabulary), 2)
    assert ((pairs >= 0).all(axis=1) | (pairs == -1).all(axis=1)).all()
    merged = (pairs[:, 0] >= 0).nonzero()[0].tolist()
    assert len(merged) > 50
    assert all(token_bytes[pairs[n, 0]] + token_bytes[pairs[n, 1]] == token_bytes[n] for n in merged)
    assert all(tokenizer.vocabulary.kind[n] == Kind.NORMAL for n in merged)
