"""Tokenizers of every family, converted to the byte alphabet."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import makers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokswap.errors import InputError
from tokswap.tokenizer.byte_alphabet import byte_alphabet_spec, uses_byte_alphabet
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer
from tokswap.tokenizer.vocabulary import Kind, byte_level_bytes, byte_level_token

ROWS = 640


@cache
def pair(folder: Path) -> tuple[Tokenizer, Tokenizer]:
    """Return a tokenizer, and the same converted."""
    tokenizer = read_tokenizer(folder)
    return tokenizer, Tokenizer(folder, byte_alphabet_spec(tokenizer, ROWS))


def ids_of(tokenizer: Tokenizer, whole: bytes) -> list[int]:
    return [piece.id for piece in tokenizer.backend.model.tokenize(byte_level_token(whole))] if whole else []


@pytest.fixture(params=makers.FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_any_bytes_can_be_tokenized(family: str, tokenizer_of: Callable[..., Path]) -> None:
    _, converted = pair(tokenizer_of(family))
    assert uses_byte_alphabet(converted.spec)
    text = converted.vocabulary.text

    @given(st.binary(max_size=24))
    def check(token_bytes: bytes) -> None:
        assert b"".join(byte_level_bytes(text[n]) for n in ids_of(converted, token_bytes)) == token_bytes

    check()


def test_ids_keep_their_meaning(family: str, tokenizer_of: Callable[..., Path]) -> None:
    tokenizer, converted = pair(tokenizer_of(family))
    own, new = tokenizer.vocabulary, converted.vocabulary
    for token in range(len(own)):
        if own.kind[token] == Kind.NORMAL and own.id_of[own.token_bytes[token]] == token:
            assert byte_level_bytes(new.text[token]) == own.token_bytes[token]
    extra = [new.text[n] for n in range(ROWS, len(new))]
    assert len(set(extra)) == len(extra)
    assert all(new.text[n] for n in range(ROWS, len(new)))


def test_every_piece_is_tokenized_as_itself(family: str, tokenizer_of: Callable[..., Path]) -> None:
    """Except for the few that no merge of BPE leads to. No text is tokenized into them either."""
    tokenizer, converted = pair(tokenizer_of(family))
    own = tokenizer.vocabulary
    pieces = sorted(token for token_bytes, token in own.id_of.items() if token_bytes)
    itself = [token for token in pieces if ids_of(converted, own.token_bytes[token]) == [token]]
    assert len(itself) >= (0.97 if family == "unigram" else 0.99) * len(pieces)


@pytest.mark.parametrize("family", ["byte-level", "sentencepiece", "unigram"])
def test_text_is_tokenized_as_before(family: str, tokenizer_of: Callable[..., Path]) -> None:
    """Words whose characters are in the vocabulary get the same ids as before."""
    tokenizer, converted = pair(tokenizer_of(family))
    own = tokenizer.vocabulary
    words = [
        " " + word for name in ("english", "german", "russian") for word in makers.shipped_text(name).split()[:150]
    ]
    known = [word for word in words if all(character.encode() in own.id_of for character in word)]
    if family == "unigram":  # the converted tokenizer has no normalizer
        normalise = tokenizer.backend.normalizer.normalize_str
        known = [word for word in known if normalise(word) == word]
    if family == "byte-level":  # and no pre-tokenizer
        known = [word for word in known if word[1:].isalpha()]
    assert len(known) > 100
    before = tokenizer.tokenize_bytes([word.encode() for word in known])
    after = [ids_of(converted, word.encode()) for word in known]
    same = sum(a == b for a, b in zip(before, after, strict=True))
    assert same >= (0.98 if family == "unigram" else 1.0) * len(known)


def test_special_tokens_are_never_produced(family: str, tokenizer_of: Callable[..., Path]) -> None:
    tokenizer, converted = pair(tokenizer_of(family))
    for token, kind in enumerate(tokenizer.vocabulary.kind.tolist()):
        if kind in (Kind.SPECIAL, Kind.UNUSED):
            assert token not in ids_of(converted, tokenizer.vocabulary.text[token].encode())


def test_too_few_rows(tokenizer_of: Callable[..., Path]) -> None:
    tokenizer = read_tokenizer(tokenizer_of("byte-level"))
    with pytest.raises(InputError) as caught:
        byte_alphabet_spec(tokenizer, len(tokenizer.vocabulary) - 1)
    assert caught.value.code == "not-byte-level"


def test_a_tokenizer_without_text(tokenizer_of: Callable[..., Path], tmp_path: Path) -> None:
    folder = makers.copy_model(tokenizer_of("wordpiece"), tmp_path / "copy")
    spec = makers.read_json(folder / "tokenizer.json")
    spec["model"]["vocab"] = {entry["content"]: entry["id"] for entry in spec["added_tokens"]}
    makers.write_json(folder / "tokenizer.json", spec)
    with pytest.raises(InputError) as caught:
        byte_alphabet_spec(read_tokenizer(folder), 100)
    assert caught.value.code == "not-byte-level"
