from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from makers import shipped_text

import tokswap
from tokswap.tokenizer.probes import TEXTS
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer
from tokswap.tokenizer.vocabulary import script_of

Make = Callable[..., Path]

SCRIPTS = [
    (b" the", "Latin"),
    ("naïve".encode(), "Latin"),
    ("ｆｕｌｌ".encode(), "Latin"),
    (" дом".encode(), "Cyrillic"),
    ("κόσμος".encode(), "Greek"),
    ("سلام".encode(), "Arabic"),
    ("नमस्ते".encode(), "Devanagari"),
    ("ひらがな".encode(), "Hiragana"),
    ("カタカナ".encode(), "Katakana"),
    ("漢字".encode(), "CJK"),
    ("한국어".encode(), "Hangul"),
    (b"3a", "Latin"),
    (b"_x", "Latin"),
    (b"123", "digits"),
    ("٣".encode(), "digits"),
    (b" 1.5", "digits"),
    (b" ", "white space"),
    (b"\n\t ", "white space"),
    (b"", "white space"),
    (b"();", "symbols"),
    ("👋".encode(), "symbols"),
    (b"\xc3", "partial UTF-8"),
    (b" \xe6\xa9", "partial UTF-8"),
]


@pytest.mark.parametrize(("token_bytes", "script"), SCRIPTS, ids=[repr(row[0]) for row in SCRIPTS])
def test_script_of(token_bytes: bytes, script: str) -> None:
    assert script_of(token_bytes) == script


def _pair(tokenizer_of: Make) -> tuple[Tokenizer, Tokenizer]:
    return read_tokenizer(tokenizer_of("byte-level")), read_tokenizer(tokenizer_of("sentencepiece", vocab_size=700))


def test_the_numbers_are_those_of_a_count_by_hand(tokenizer_of: Make) -> None:
    from tokenizers import Tokenizer as Library

    first, second = _pair(tokenizer_of)
    text = shipped_text("german")
    facts = tokswap.compare_tokenizers(first, second, {"german": text, "empty": ""})
    assert json.loads(json.dumps(facts)) == facts
    assert facts["families"] == ["byte-level BPE", "SentencePiece BPE"]
    assert facts["sizes"] == [600, 700]

    libraries = [Library.from_file(str(t.path / "tokenizer.json")) for t in (first, second)]
    counts = [len(library.encode(text, add_special_tokens=False).ids) for library in libraries]
    assert facts["tokens_per_byte"] == {"german": [count / len(text.encode()) for count in counts]}

    # Token bytes of byte-level BPE, by the library's own decoder; SentencePiece writes it in the token.
    ours = {bytes(library_bytes(libraries[0], n)) for n in range(7, 600)}
    theirs = {libraries[1].id_to_token(n).replace("▁", " ").encode() for n in range(266, 700)}
    theirs |= {bytes([byte]) for byte in range(256)}
    assert facts["shared"] == len(ours & theirs)
    assert facts["shared_share"] == [len(ours & theirs) / len(ours), len(ours & theirs) / len(theirs)]
    for column, tokens in enumerate((ours, theirs, ours & theirs)):
        assert sum(counts[column] for counts in facts["scripts"].values()) == len(tokens)
        assert facts["scripts"]["Cyrillic"][column] == sum(script_of(token) == "Cyrillic" for token in tokens)
    sizes = [max(counts[:2]) for counts in facts["scripts"].values()]
    assert sizes == sorted(sizes, reverse=True)


def library_bytes(library: object, token: int) -> bytes:
    """Return the bytes of a byte-level BPE token, found without tokswap."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
    return bytes(byte_of[character] for character in library.id_to_token(token))  # type: ignore[attr-defined]


def test_special_tokens_and_what_would_take_their_place(tokenizer_of: Make) -> None:
    first, second = _pair(tokenizer_of)
    assert tokswap.compare_tokenizers(first, second)["specials"] == {
        "<pad>": "<|im_end|>",
        "<eos>": "<|im_end|>",
        "<bos>": "<|im_start|>",
        "<unk>": None,
    }
    assert tokswap.compare_tokenizers(second, first)["specials"] == {
        "<|endoftext|>": "<eos>",
        "<|im_start|>": "<bos>",
        "<|im_end|>": "<eos>",
    }


def test_a_tokenizer_shares_everything_with_itself(tokenizer_of: Make) -> None:
    for family in ("byte-level", "sentencepiece", "unigram", "wordpiece"):
        tokenizer = read_tokenizer(tokenizer_of(family))
        facts = tokswap.compare_tokenizers(tokenizer, tokenizer)
        assert facts["shared_share"] == [1.0, 1.0]
        assert all(a == b == both for a, b, both in facts["scripts"].values())
        assert all(token == source for token, source in facts["specials"].items())
        assert facts["tokens_per_byte"].keys() == TEXTS.keys()
        assert all(a == b > 0 for a, b in facts["tokens_per_byte"].values())


def test_vocabularies_without_anything_in_common(tokenizer_of: Make) -> None:
    first = read_tokenizer(tokenizer_of("wordpiece", seed_text=["abcabd bad cab"] * 4, vocab_size=80))
    second = read_tokenizer(tokenizer_of("wordpiece", seed_text=["хлеб да вода"] * 4, vocab_size=80))
    facts = tokswap.compare_tokenizers(first, second)
    assert facts["shared"] == 0
    assert facts["shared_share"] == [0.0, 0.0]
    assert set(facts["scripts"]) == {"Latin", "Cyrillic"}
