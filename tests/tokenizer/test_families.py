from __future__ import annotations

from typing import Any

import makers
import pytest
from hypothesis import example, given
from specs import AWKWARD, LOSSLESS, add_token, added, set_model, spelled, texts

from tokswap.errors import InputError
from tokswap.tokenizer.families import BYTE_LEVEL, SENTENCEPIECE, UNIGRAM, WORDPIECE
from tokswap.tokenizer.tokenizer import read_tokenizer
from tokswap.tokenizer.vocabulary import Kind


@pytest.mark.parametrize(
    ("family", "expected"),
    [("byte-level", BYTE_LEVEL), ("sentencepiece", SENTENCEPIECE), ("unigram", UNIGRAM), ("wordpiece", WORDPIECE)],
)
def test_family(read, family: str, expected: str) -> None:
    assert read(family).family == expected


@pytest.mark.parametrize("family", makers.FAMILIES)
def test_the_family_is_read_from_the_file_and_not_from_a_class_name(edited, family: str) -> None:
    folder = edited(family, lambda spec: None)
    honest = read_tokenizer(folder).family
    makers.edit_json(folder / "tokenizer_config.json", tokenizer_class="BertTokenizerFast")
    assert read_tokenizer(folder / "tokenizer.json").family == honest
    (folder / "tokenizer_config.json").unlink()
    assert read_tokenizer(folder).family == read_tokenizer(folder / "tokenizer.json").family == honest


@pytest.mark.parametrize(
    ("family", "text", "token_bytes", "kind"),
    [
        ("byte-level", "Ġthe", b" the", Kind.NORMAL),
        ("byte-level", "Ċ", b"\n", Kind.NORMAL),
        ("byte-level", "é", b"\xe9", Kind.NORMAL),
        ("byte-level", "<|im_end|>", b"<|im_end|>", Kind.SPECIAL),
        ("byte-level", "<|reserved_special_token_1|>", b"<|reserved_special_token_1|>", Kind.UNUSED),
        ("sentencepiece", "▁the", b" the", Kind.NORMAL),
        ("sentencepiece", "▁▁", b"  ", Kind.NORMAL),
        ("sentencepiece", "<0x0A>", b"\n", Kind.BYTE),
        ("sentencepiece", "<0x41>", b"A", Kind.BYTE),
        ("sentencepiece", "<bos>", b"<bos>", Kind.SPECIAL),
        ("sentencepiece", "<unused3>", b"<unused3>", Kind.UNUSED),
        ("unigram", "▁", b" ", Kind.NORMAL),
        ("unigram", "ü", "ü".encode(), Kind.NORMAL),
        ("unigram", "</s>", b"</s>", Kind.SPECIAL),
        ("wordpiece", "the", b" the", Kind.NORMAL),
        ("wordpiece", "##n", b"n", Kind.NORMAL),
        ("wordpiece", "[MASK]", b"[MASK]", Kind.SPECIAL),
    ],
)
def test_token_bytes_and_kind(read, family: str, text: str, token_bytes: bytes, kind: Kind) -> None:
    vocab = read(family).vocabulary
    token = vocab.id_of_text[text]
    assert (vocab.token_bytes[token], vocab.kind[token]) == (token_bytes, kind)


def test_normal_piece_outranks_the_byte_piece(read) -> None:
    vocab = read("sentencepiece").vocabulary
    assert vocab.text[vocab.id_of[b"A"]] == "A"
    assert vocab.text[vocab.byte_piece_of[b"A"]] == "<0x41>"
    assert len(vocab.byte_piece_of) == 256


def test_a_letter_of_sentencepiece_is_not_a_byte_of_byte_level_bpe(read) -> None:
    french = {"seed_text": ["Le café est fermé, l'été est passé."] * 3}
    letter = read("sentencepiece", **french).vocabulary
    assert letter.token_bytes[letter.id_of_text["é"]] == "é".encode()
    byte = read("byte-level", **french).vocabulary
    assert byte.token_bytes[byte.id_of_text["é"]] == b"\xe9"
    assert byte.token_bytes[byte.id_of_text["Ã©"]] == "é".encode()


@pytest.mark.parametrize("family", LOSSLESS)
@given(text=texts)
@example(text="".join(AWKWARD))
def test_the_tokens_of_any_text_spell_its_bytes(read, family: str, text: str) -> None:
    tokenizer = read(family)
    assert spelled(tokenizer, tokenizer.encode(text)) == text.encode()


@pytest.mark.parametrize("text", makers.shipped_texts() + AWKWARD)
@pytest.mark.parametrize("family", LOSSLESS)
def test_the_tokens_of_real_text_spell_its_bytes(read, family: str, text: str) -> None:
    tokenizer = read(family)
    assert spelled(tokenizer, tokenizer.encode(text)) == text.encode()


def test_roles_are_those_of_the_config(read) -> None:
    assert read("byte-level").vocabulary.roles == {"bos": 1, "eos": 2, "pad": 2}
    assert read("sentencepiece").vocabulary.roles == {"pad": 0, "eos": 1, "bos": 2, "unk": 3}
    assert read("wordpiece").vocabulary.roles == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}


def test_one_token_keeps_all_its_roles(edited) -> None:
    folder = edited("byte-level", lambda spec: None)
    entry = added(0, "<|endoftext|>", special=True)
    del entry["id"]
    roles = {
        "bos_token": {"__type": "AddedToken", **entry},
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": None,
    }
    makers.edit_json(folder / "tokenizer_config.json", **roles)
    assert read_tokenizer(folder).vocabulary.roles_of(0) == ["bos", "eos", "unk"]


def test_roles_without_a_config_come_from_the_special_tokens_map_and_the_model(edited) -> None:
    folder = edited("unigram", lambda spec: None)
    (folder / "tokenizer_config.json").unlink()
    assert read_tokenizer(folder).vocabulary.roles == {"unk": 3}
    makers.write_json(folder / "special_tokens_map.json", {"eos_token": "</s>", "bos_token": {"content": "<s>"}})
    assert read_tokenizer(folder).vocabulary.roles == {"eos": 2, "bos": 0, "unk": 3}


def test_a_role_makes_a_plain_token_special(edited) -> None:
    folder = edited("byte-level", lambda spec: None)
    makers.edit_json(folder / "tokenizer_config.json", pad_token="Ġthe")
    vocab = read_tokenizer(folder).vocabulary
    assert vocab.kind[vocab.roles["pad"]] == Kind.SPECIAL
    assert b" the" not in vocab.id_of


def test_plain_added_tokens_are_text(edited) -> None:
    """GPT-NeoX adds runs of spaces that its byte alphabet could not spell."""
    folder = edited("byte-level", lambda spec: [add_token(600, "     ")(spec), add_token(601, "[special]", True)(spec)])
    tokenizer = read_tokenizer(folder)
    vocab = tokenizer.vocabulary
    assert (vocab.token_bytes[600], vocab.kind[600]) == (b"     ", Kind.NORMAL)
    assert vocab.kind[601] == Kind.SPECIAL
    assert spelled(tokenizer, tokenizer.encode("a     b")) == b"a     b"
    assert 600 in tokenizer.encode("a     b")


def test_a_plain_added_token_of_the_model_keeps_its_bytes(edited) -> None:
    """Gemma adds its runs of spaces once more, as plain added tokens."""
    ids = {}

    def change(spec: dict[str, Any]) -> None:
        ids["▁▁"] = spec["model"]["vocab"]["▁▁"]
        add_token(ids["▁▁"], "▁▁")(spec)

    vocab = read_tokenizer(edited("sentencepiece", change)).vocabulary
    assert (vocab.token_bytes[ids["▁▁"]], vocab.kind[ids["▁▁"]]) == (b"  ", Kind.NORMAL)


def test_ids_that_no_token_has_are_unused(edited) -> None:
    vocab = read_tokenizer(edited("byte-level", lambda spec: spec["model"]["vocab"].update(zzz=603))).vocabulary
    assert len(vocab) == 604
    for token in (600, 601, 602):
        assert (vocab.text[token], vocab.token_bytes[token], vocab.kind[token]) == ("", b"", Kind.UNUSED)


def test_an_added_token_that_the_model_has_under_another_id_has_that_id(edited) -> None:
    """The tokenizers library gives it the model's id, whatever the file says."""
    folder = edited("byte-level", add_token(600, "Ġthe"))
    vocab = read_tokenizer(folder / "tokenizer.json").vocabulary
    assert vocab.kind[600] == Kind.UNUSED
    vocab = read_tokenizer(folder).vocabulary
    assert len(vocab) == 600
    assert vocab.text[vocab.id_of[b" the"]] == "Ġthe"
    assert b"" not in vocab.id_of


def test_reserved_slots_of_the_model_are_unused(edited) -> None:
    """BERT has its `[unused0]` in the vocabulary and not among the added tokens."""

    def change(spec: dict[str, Any]) -> None:
        spec["model"]["vocab"]["[unused0]"] = 600

    vocab = read_tokenizer(edited("wordpiece", change)).vocabulary
    assert (vocab.token_bytes[600], vocab.kind[600]) == (b"[unused0]", Kind.UNUSED)


def test_wordpiece_prefix_is_the_one_of_the_file(edited) -> None:
    def change(spec: dict[str, Any]) -> None:
        vocab = spec["model"]["vocab"]
        spec["model"]["vocab"] = {text.replace("##", "@@"): token for text, token in vocab.items()}
        spec["model"]["continuing_subword_prefix"] = "@@"

    vocab = read_tokenizer(edited("wordpiece", change)).vocabulary
    assert vocab.token_bytes[vocab.id_of_text["@@n"]] == b"n"


def word_level(spec: dict[str, Any]) -> None:
    spec["model"] = {"type": "WordLevel", "vocab": {"a": 0, "<unk>": 1}, "unk_token": "<unk>"}


def end_of_word(spec: dict[str, Any]) -> None:
    spec["model"]["end_of_word_suffix"] = "</w>"


def without_byte_level(spec: dict[str, Any]) -> None:
    spec |= {"pre_tokenizer": None, "decoder": None}


@pytest.mark.parametrize("change", [word_level, end_of_word, without_byte_level])
def test_unsupported_tokenizers_are_refused(edited, change) -> None:
    with pytest.raises(InputError) as caught:
        read_tokenizer(edited("byte-level", change))
    assert caught.value.code == "unsupported-tokenizer"


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("byte-level", add_token(5, "<mine>", True)),
        ("byte-level", set_model(vocab={"a": 0, "b": 0}, merges=[])),
        ("unigram", set_model(vocab=[["<unk>", 0.0], ["a", -1.0], ["a", -2.0]], unk_id=0)),
    ],
)
def test_two_tokens_of_one_id_are_refused(edited, family: str, change) -> None:
    with pytest.raises(InputError) as caught:
        read_tokenizer(edited(family, change))
    assert caught.value.code == "duplicate-ids"
