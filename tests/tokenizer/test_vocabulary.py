from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokswap.tokenizer.vocabulary import (
    BYTE_ALPHABET,
    Kind,
    Vocabulary,
    byte_level_bytes,
    byte_level_token,
    is_byte_piece,
    is_reserved,
    sentencepiece_bytes,
    wordpiece_bytes,
)


def vocabulary(*tokens: tuple[str, bytes, Kind], **roles: int) -> Vocabulary:
    text, token_bytes, kind = zip(*tokens, strict=True)
    return Vocabulary(text, token_bytes, kind=np.array(kind, np.uint8), roles=roles)


def test_byte_alphabet_is_that_of_the_tokenizers_library() -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    assert set(BYTE_ALPHABET) == set(ByteLevel.alphabet())
    assert sorted(BYTE_ALPHABET.values()) == list(range(256))


@pytest.mark.parametrize("text", ["a", " the", "\n", "\t\x00\x7f", "é", "日本", "\u00ad\u00a0", "🙂"])
def test_byte_level_spelling_is_that_of_the_tokenizers_library(text: str) -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    spelled = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    assert [token for token, _ in spelled] == [byte_level_token(text.encode())]


@given(st.binary())
def test_byte_level_bytes_undoes_byte_level_token(token_bytes: bytes) -> None:
    assert byte_level_bytes(byte_level_token(token_bytes)) == token_bytes


@given(st.text(st.sampled_from(sorted(BYTE_ALPHABET))))
def test_byte_level_token_undoes_byte_level_bytes(token: str) -> None:
    assert byte_level_token(byte_level_bytes(token)) == token


@given(st.text(st.characters(codec="utf-8", exclude_characters="▁")))
def test_sentencepiece_pieces_stand_for_their_text(text: str) -> None:
    assert sentencepiece_bytes(text.replace(" ", "▁")) == text.encode()


@given(st.integers(0, 255))
def test_byte_pieces_stand_for_one_byte(byte: int) -> None:
    assert sentencepiece_bytes(f"<0x{byte:02X}>") == bytes([byte])
    assert is_byte_piece(f"<0x{byte:02X}>")


@pytest.mark.parametrize(
    ("token", "token_bytes"),
    [
        ("Ġthe", b" the"),
        ("Ċ", b"\n"),
        ("ĠĠ", b"  "),
        ("é", b"\xe9"),  # one byte of a character, and not the letter
        ("Ã©", "é".encode()),
        ("   ", b"   "),  # added by hand, as GPT-NeoX does: outside the alphabet, so it is its own text
        ("日", "日".encode()),
        ("", b""),
    ],
)
def test_byte_level_bytes(token: str, token_bytes: bytes) -> None:
    assert byte_level_bytes(token) == token_bytes


@pytest.mark.parametrize(
    ("piece", "token_bytes"),
    [
        ("▁the", b" the"),
        ("▁▁", b"  "),
        ("é", "é".encode()),
        ("<0x0A>", b"\n"),
        ("<0xe9>", b"\xe9"),
        ("<0x0A", b"<0x0A"),
        ("<0x0A>\n", b"<0x0A>\n"),
        ("a<0x0A>", b"a<0x0A>"),
    ],
)
def test_sentencepiece_bytes(piece: str, token_bytes: bytes) -> None:
    assert sentencepiece_bytes(piece) == token_bytes


@pytest.mark.parametrize(
    ("token", "prefix", "token_bytes"),
    [("the", "##", b" the"), ("##ing", "##", b"ing"), ("#", "##", b" #"), ("@@x", "@@", b"x"), ("the", "", b" the")],
)
def test_wordpiece_bytes(token: str, prefix: str, token_bytes: bytes) -> None:
    assert wordpiece_bytes(token, prefix) == token_bytes


@pytest.mark.parametrize(
    ("token", "reserved"),
    [
        ("<unused7>", True),
        ("<unused_7>", True),
        ("[unused12]", True),
        ("<|reserved_special_token_3|>", True),
        ("<|reserved_200010|>", True),
        ("<SPECIAL_11>", True),
        ("[control_8]", True),
        ("<|extra_5|>", True),
        ("<|im_start|>", False),
        ("<extra_id_0>", False),  # T5 is trained with these
        ("unused", False),
        ("<unused>", False),
        ("<unused7> ", False),
        ("<unused7>\n", False),
    ],
)
def test_is_reserved(token: str, reserved: bool) -> None:
    assert is_reserved(token) == reserved


def test_vocabulary_has_one_entry_per_token() -> None:
    with pytest.raises(ValueError, match="one entry per token"):
        Vocabulary(["a", "b"], [b"a"], np.zeros(2, np.uint8))


@pytest.mark.parametrize("token", [-1, 1])
def test_roles_are_ids_of_the_vocabulary(token: int) -> None:
    with pytest.raises(ValueError, match="outside the vocabulary"):
        vocabulary(("a", b"a", Kind.NORMAL), bos=token)


@pytest.mark.parametrize("order", [1, -1])
def test_normal_piece_outranks_byte_piece_in_any_order(order: int) -> None:
    pieces = [("A", b"A", Kind.NORMAL), ("<0x41>", b"A", Kind.BYTE)][::order]
    vocab = vocabulary(*pieces, ("<0x42>", b"B", Kind.BYTE))
    assert vocab.text[vocab.id_of[b"A"]] == "A"
    assert vocab.text[vocab.id_of[b"B"]] == "<0x42>"
    assert vocab.text[vocab.byte_piece_of[b"A"]] == "<0x41>"


def test_first_of_equal_pieces_counts_and_special_tokens_have_no_bytes_to_match() -> None:
    vocab = vocabulary(
        ("<s>", b"<s>", Kind.SPECIAL), ("", b"", Kind.UNUSED), ("x", b"x", Kind.NORMAL), ("x2", b"x", Kind.NORMAL)
    )
    assert vocab.id_of == {b"x": 2}
    assert vocab.id_of_text == {"<s>": 0, "x": 2, "x2": 3}


def test_the_id_that_text_is_tokenized_into_counts() -> None:
    vocab = Vocabulary(
        ["ĠĠ", "<0x41>", "A", "  ", "für", "<0x42>"],
        [b"  ", b"A", b"A", b"  ", "für".encode(), b"B"],
        np.array([Kind.NORMAL, Kind.BYTE, Kind.NORMAL, Kind.NORMAL, Kind.NORMAL, Kind.BYTE], np.uint8),
        unproduced=frozenset({0, 4}),
    )
    assert vocab.id_of == {b"  ": 3, b"A": 2, "für".encode(): 4, b"B": 5}
    assert vocab.produced == {b"  ": 3, b"A": 2, b"B": 5}
    assert np.flatnonzero(vocab.unreachable).tolist() == [0, 1, 4]
    assert np.flatnonzero(vocab.pieces).tolist() == [2, 3]


def test_a_token_is_found_by_its_spelling_or_else_by_its_text() -> None:
    vocab = vocabulary(
        ("Ġthe", b" the", Kind.NORMAL),
        ("the", b"the", Kind.NORMAL),
        ("é", b"\xe9", Kind.NORMAL),
        ("Ã©", "é".encode(), Kind.NORMAL),
        ("<s>", b"<s>", Kind.SPECIAL),
    )
    assert [vocab.find(text) for text in ("Ġthe", " the", "the", "<s>")] == [0, 0, 1, 4]
    assert vocab.find("é") == 2, "the spelling goes first"
    assert vocab.find("\udce9") == 2, "a byte of the command line that is not UTF-8"
    assert vocab.find("she") is None


def test_one_token_keeps_all_its_roles() -> None:
    vocab = vocabulary(("<|endoftext|>", b"<|endoftext|>", Kind.SPECIAL), ("a", b"a", Kind.NORMAL), unk=0, eos=0, bos=0)
    assert vocab.roles_of(0) == ["bos", "eos", "unk"]
    assert vocab.roles_of(1) == []


@given(st.lists(st.tuples(st.text(max_size=2), st.binary(max_size=1), st.sampled_from(Kind)), min_size=1, max_size=12))
def test_id_of_names_a_piece_with_these_bytes_whenever_there_is_one(tokens: list[tuple[str, bytes, Kind]]) -> None:
    vocab = vocabulary(*tokens)
    pieces = [n for n, (_, _, kind) in enumerate(tokens) if kind in (Kind.NORMAL, Kind.BYTE)]
    assert vocab.id_of.keys() == {tokens[n][1] for n in pieces}
    for token_bytes, found in vocab.id_of.items():
        rivals = [n for n in pieces if tokens[n][1] == token_bytes]
        assert found == min(rivals, key=lambda n: (tokens[n][2] == Kind.BYTE, n))
