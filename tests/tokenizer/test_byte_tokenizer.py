from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import makers
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from specs import LOSSLESS, add_token, spelled, texts

from tokswap.tokenizer.tokenizer import read_tokenizer
from tokswap.tokenizer.vocabulary import Kind

byte_strings = st.binary(max_size=12) | texts.map(str.encode)


@pytest.mark.parametrize("family", LOSSLESS)
@given(token_bytes=byte_strings)
@example(token_bytes="日本".encode()[1:5])
@example(token_bytes=b"\xc3")
@example(token_bytes=b" the\xff the")
def test_the_ids_spell_exactly_the_bytes(read, family: str, token_bytes: bytes) -> None:
    tokenizer = read(family)
    (ids,) = tokenizer.tokenize_bytes([token_bytes])
    assert spelled(tokenizer, ids) == token_bytes


@pytest.mark.parametrize("family", makers.FAMILIES)
@given(rows=st.lists(byte_strings, max_size=5))
def test_each_byte_string_gives_one_list_of_text_pieces(read, family: str, rows: list[bytes]) -> None:
    tokenizer = read(family)
    result = tokenizer.tokenize_bytes(rows)
    assert result == [tokenizer.tokenize_bytes([row])[0] for row in rows]
    assert all(tokenizer.vocabulary.kind[token] in (Kind.NORMAL, Kind.BYTE) for ids in result for token in ids)


@pytest.mark.parametrize("family", makers.FAMILIES)
def test_no_special_token_is_produced(read, family: str) -> None:
    tokenizer = read(family)
    vocab = tokenizer.vocabulary
    specials = [token for token in range(len(vocab)) if vocab.kind[token] in (Kind.SPECIAL, Kind.UNUSED)]
    assert specials
    for ids in tokenizer.tokenize_bytes([vocab.token_bytes[token] for token in specials]):
        assert ids
        assert not set(ids) & set(specials)


@pytest.mark.parametrize("family", makers.FAMILIES[:3])
def test_plain_tokens_between_special_tokens_keep_their_ids(edited, family: str) -> None:
    more = [(600, "[a]", True), (601, "[plain]", False), (602, "<unused77>", False), (603, "[other]", False)]
    tokenizer = read_tokenizer(edited(family, lambda spec: [add_token(*token)(spec) for token in more]))
    assert tokenizer.tokenize_bytes([b"[plain]", b"[other]"]) == [[601], [603]]
    assert not {600, 602} & {token for ids in tokenizer.tokenize_bytes([b"[a]", b"<unused77>"]) for token in ids}


@pytest.mark.parametrize("family", LOSSLESS)
def test_each_token_of_a_text_is_tokenized_as_itself(read, family: str) -> None:
    tokenizer = read(family)
    for token in set(tokenizer.encode(makers.shipped_text("english"))):
        token_bytes = tokenizer.vocabulary.token_bytes[token]
        assert tokenizer.tokenize_bytes([token_bytes]) == [[tokenizer.vocabulary.id_of[token_bytes]]]


def test_part_of_a_character_is_tokenized_as_bytes(read) -> None:
    part = "Ü".encode()[:1], "🙂".encode()[1:]
    gpt, gemma, xlmr = (read(family) for family in ("byte-level", "sentencepiece", "unigram"))
    assert [gpt.vocabulary.text[token] for ids in gpt.tokenize_bytes(part) for token in ids] == ["Ã", "Ł", "Ļ", "Ĥ"]
    assert [gemma.vocabulary.text[token] for ids in gemma.tokenize_bytes(part) for token in ids] == [
        "<0xC3>",
        "<0x9F>",
        "<0x99>",
        "<0x82>",
    ]
    assert xlmr.tokenize_bytes([b"a" + part[0], part[1]]) == [*xlmr.tokenize_bytes([b"a"]), []]  # it has no byte pieces


def test_merges_cross_the_edge_of_a_character(read) -> None:
    tokenizer = read("byte-level", seed_text=["日本語 日記 日時"] * 3)
    pieces = [piece for piece in tokenizer.vocabulary.token_bytes if not piece.isascii() and len(piece) > 1]
    partial = [piece for piece in pieces if piece.decode(errors="replace")[-1] == "\ufffd"]
    assert partial
    assert tokenizer.tokenize_bytes(partial) == [[tokenizer.vocabulary.id_of[piece]] for piece in partial]


def llama2(spec: dict[str, Any]) -> None:
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    spec["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]}
    spec["pre_tokenizer"] = None


def metaspace(spec: dict[str, Any]) -> None:
    spec["normalizer"] = None
    spec["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}


def prefix_space(spec: dict[str, Any]) -> None:
    spec["pre_tokenizer"]["add_prefix_space"] = True


def strips(spec: dict[str, Any]) -> None:
    spec["normalizer"] = {
        "type": "Sequence",
        "normalizers": [{"type": "Strip", "strip_left": True, "strip_right": True}],
    }


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("sentencepiece", llama2),
        ("sentencepiece", metaspace),
        ("byte-level", prefix_space),
        ("unigram", strips),
        ("byte-level", strips),
    ],
)
@pytest.mark.parametrize("token_bytes", [b"the", b" the", b"  ", b"the ", b" "])
def test_no_space_is_added_and_none_is_stripped(edited, family: str, change, token_bytes: bytes) -> None:
    tokenizer = read_tokenizer(edited(family, change))
    assert spelled(tokenizer, tokenizer.tokenize_bytes([token_bytes])[0]) == token_bytes


def test_what_the_vocabulary_cannot_spell_is_left_out(edited) -> None:

    def change(spec: dict[str, Any]) -> None:
        spec["model"]["byte_fallback"] = False

    tokenizer = read_tokenizer(edited("sentencepiece", change))
    assert spelled(tokenizer, tokenizer.tokenize_bytes(["the ☃ the".encode()])[0]) == b"the  the"
    assert tokenizer.tokenize_bytes(["☃☃".encode(), b""]) == [[], []]


def test_wordpiece_tells_words_from_continuations(read) -> None:
    tokenizer = read("wordpiece")

    def pieces(text: str) -> list[str]:
        return [tokenizer.vocabulary.text[token] for token in tokenizer.tokenize_bytes([text.encode()])[0]]

    assert pieces(" the") == ["the"]
    assert pieces(" The") == ["the"]  # its normalizer makes it lower case
    assert pieces("n") == ["##n"]
    assert pieces(" then")[0] == "the"
    assert all(piece.startswith("##") for piece in pieces("the") + pieces(" then")[1:])
    assert pieces(" the the") == ["the", "the"]
    assert pieces(" ☃") == []
    assert pieces(" the☃n") == ["the", "##n"]
    assert pieces(" the-the") == ["the", "-", "the"]
    assert pieces("  ") == []


def test_punctuation_is_a_word_of_wordpiece_after_a_letter_too(read) -> None:
    """A piece such as `.` of another vocabulary had no tokens, and so the row of no token."""
    tokenizer = read("wordpiece")
    ids = tokenizer.vocabulary.id_of_text
    for mark in (".", "(", "-"):
        assert tokenizer.encode("the" + mark) == [ids["the"], ids[mark]]
        assert tokenizer.tokenize_bytes([mark.encode()]) == [[ids[mark]]]


def test_wordpiece_without_a_pre_tokenizer(edited) -> None:
    tokenizer = read_tokenizer(edited("wordpiece", lambda spec: spec.update(pre_tokenizer=None, normalizer=None)))
    assert tokenizer.tokenize_bytes([b" the"]) == [[tokenizer.vocabulary.id_of[b" the"]]]


def test_an_added_token_outside_the_model(tokenizer_of, tmp_path: Path) -> None:
    folder = shutil.copytree(tokenizer_of("byte-level"), tmp_path / "more")
    spec = makers.read_json(folder / "tokenizer.json")
    token = len(read_tokenizer(folder).vocabulary)
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": token, "content": "@@", "special": False})
    makers.write_json(folder / "tokenizer.json", spec)
    assert token in read_tokenizer(folder).tokenize_bytes([b" a@@b"])[0]
