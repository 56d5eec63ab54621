from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import pytest
import tools
from hypothesis import example, given
from hypothesis import strategies as st

from tokswap.errors import InputError
from tokswap.tokenizer.families import BYTE_LEVEL, SENTENCEPIECE, UNIGRAM, WORDPIECE
from tokswap.tokenizer.tokenizer import Tokenizer, auto_tokenizer, read_tokenizer, spec_bytes
from tokswap.tokenizer.vocabulary import Kind

LOSSLESS = ("byte-level", "sentencepiece")
AWKWARD = [
    "",
    " ",
    "  a",
    "a  ",
    "\n\n\t",
    "🙂👩‍👩‍👧",
    "日本語 テキスト",
    "é e\u0301",
    "\x00\x7f\u200b",
    "Ġ <0x41> ##a",
]
# ▁ is how SentencePiece writes a space, so a text cannot hold the character itself.
texts = st.text(st.characters(codec="utf-8", exclude_characters="▁"))
surfaces = st.binary(max_size=12) | texts.map(str.encode)
Find = Callable[..., Path]


@pytest.fixture(scope="session")
def read(tokenizer_of: Find) -> Callable[..., Tokenizer]:
    return lambda family, **options: read_tokenizer(tokenizer_of(family, **options))


@pytest.fixture
def edited(tokenizer_of: Find, tmp_path: Path) -> Callable[..., Path]:
    """Return a copy of a tokenizer whose tokenizer.json was changed by a function."""

    def edit(family: str, change: Callable[[dict[str, Any]], Any], **options: Any) -> Path:
        folder = makers.copy_model(tokenizer_of(family, **options), tmp_path / "edited")
        spec = makers.read_json(folder / "tokenizer.json")
        change(spec)
        makers.write_json(folder / "tokenizer.json", spec)
        return folder

    return edit


def spelled(tokenizer: Tokenizer, ids: list[int]) -> bytes:
    return b"".join(tokenizer.vocabulary.token_bytes[token] for token in ids)


def added(token: int, content: str, special: bool = False) -> dict[str, Any]:
    return {"id": token, "content": content, "special": special, "normalized": False} | dict.fromkeys(
        ("single_word", "lstrip", "rstrip"), False
    )


def add_token(token: int, content: str, special: bool = False) -> Callable[[dict[str, Any]], None]:
    return lambda spec: spec["added_tokens"].append(added(token, content, special))


# What the tokens are


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
    assert read_tokenizer(folder).family == honest
    (folder / "tokenizer_config.json").unlink()
    assert read_tokenizer(folder / "tokenizer.json").family == honest


@pytest.mark.parametrize(
    ("family", "text", "surface", "kind"),
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
def test_surface_and_kind(read, family: str, text: str, surface: bytes, kind: Kind) -> None:
    vocab = read(family).vocabulary
    token = vocab.id_of_text[text]
    assert (vocab.token_bytes[token], vocab.kind[token]) == (surface, kind)


def test_normal_piece_outranks_the_byte_piece(read) -> None:
    vocab = read("sentencepiece").vocabulary
    assert vocab.text[vocab.id_of[b"A"]] == "A"
    assert vocab.text[vocab.byte_piece_of[b"A"]] == "<0x41>"
    assert len(vocab.byte_piece_of) == 256


def test_a_letter_of_sentencepiece_is_not_a_byte_of_byte_level(read) -> None:
    french = {"seed_text": ["Le café est fermé, l'été est passé."] * 3}
    letter = read("sentencepiece", **french).vocabulary
    assert letter.token_bytes[letter.id_of_text["é"]] == "é".encode()
    byte = read("byte-level", **french).vocabulary
    assert byte.token_bytes[byte.id_of_text["é"]] == b"\xe9"
    assert byte.token_bytes[byte.id_of_text["Ã©"]] == "é".encode()


@pytest.mark.parametrize("family", LOSSLESS)
@given(text=texts)
@example(text="".join(AWKWARD))
def test_the_surfaces_of_an_encoded_text_are_its_bytes(read, family: str, text: str) -> None:
    tokenizer = read(family)
    assert spelled(tokenizer, tokenizer.encode(text)) == text.encode()


@pytest.mark.parametrize("text", makers.shipped_texts() + AWKWARD)
@pytest.mark.parametrize("family", LOSSLESS)
def test_the_surfaces_of_real_text_are_its_bytes(read, family: str, text: str) -> None:
    tokenizer = read(family)
    assert spelled(tokenizer, tokenizer.encode(text)) == text.encode()


def test_roles_are_those_of_the_config(read) -> None:
    assert read("byte-level").vocabulary.roles == {"bos": 1, "eos": 2, "pad": 2}
    assert read("sentencepiece").vocabulary.roles == {"pad": 0, "eos": 1, "bos": 2, "unk": 3}
    assert read("wordpiece").vocabulary.roles == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}


def test_one_token_keeps_all_its_roles(edited) -> None:
    folder = edited("byte-level", lambda spec: None)
    entry = added(0, "<|endoftext|>", special=True)
    roles = {"bos_token": entry, "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": None}
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


def test_an_added_token_that_the_model_has_under_another_id_leaves_that_id_unused(edited) -> None:
    vocab = read_tokenizer(edited("byte-level", add_token(600, "Ġthe"))).vocabulary
    assert vocab.kind[600] == Kind.UNUSED
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


def test_adds_bos(read, edited) -> None:
    for family in ("byte-level", "sentencepiece", "unigram"):
        assert not read(family).adds_bos
        assert read(family, adds_bos=True).adds_bos
    assert not read("wordpiece").adds_bos  # it has no bos

    def roberta(spec: dict[str, Any]) -> None:
        spec["post_processor"] = {"type": "RobertaProcessing", "sep": ["<|im_end|>", 2], "cls": ["<|im_start|>", 1]}

    assert read_tokenizer(edited("byte-level", roberta)).adds_bos


def test_the_template_decides_about_bos_and_not_the_flag_of_the_config(edited) -> None:
    """transformers ignores `add_bos_token` where there is a tokenizer.json."""
    folder = edited("sentencepiece", lambda spec: None)
    makers.edit_json(folder / "tokenizer_config.json", add_bos_token=True)
    assert not read_tokenizer(folder).adds_bos


def test_added_tokens_whose_ids_the_library_would_change_are_refused(edited) -> None:
    def leave_a_gap(spec: dict) -> None:
        spec["added_tokens"].append({**spec["added_tokens"][0], "id": 5000, "content": "<far away>", "special": True})

    tokenizer = read_tokenizer(edited("byte-level", leave_a_gap))
    with pytest.raises(InputError) as caught:
        tokenizer.encode("text")
    assert caught.value.code == "bad-tokenizer"
    assert "5000" in caught.value.message


@pytest.mark.parametrize("in_config", [False, True])
def test_chat_template(tmp_path: Path, in_config: bool) -> None:
    template = None if in_config else makers.CHAT_TEMPLATE
    folder = makers.make_tokenizer("byte-level", tmp_path, chat_template=template)
    assert read_tokenizer(folder).chat_template == template
    if in_config:
        makers.edit_json(folder / "tokenizer_config.json", chat_template=makers.CHAT_TEMPLATE)
        assert read_tokenizer(folder).chat_template == makers.CHAT_TEMPLATE


# Cutting bytes


@pytest.mark.parametrize("family", LOSSLESS)
@given(surface=surfaces)
@example(surface="日本".encode()[1:5])
@example(surface=b"\xc3")
@example(surface=b" the\xff the")
def test_segment_spells_exactly_the_surface(read, family: str, surface: bytes) -> None:
    tokenizer = read(family)
    (ids,) = tokenizer.tokenize_bytes([surface])
    assert spelled(tokenizer, ids) == surface


@pytest.mark.parametrize("family", makers.FAMILIES)
@given(rows=st.lists(surfaces, max_size=5))
def test_segment_makes_text_pieces_only_and_one_row_a_surface(read, family: str, rows: list[bytes]) -> None:
    tokenizer = read(family)
    cut = tokenizer.tokenize_bytes(rows)
    assert cut == [tokenizer.tokenize_bytes([row])[0] for row in rows]
    assert all(tokenizer.vocabulary.kind[token] in (Kind.NORMAL, Kind.BYTE) for ids in cut for token in ids)


@pytest.mark.parametrize("family", makers.FAMILIES)
def test_segment_never_makes_a_special_token(read, family: str) -> None:
    tokenizer = read(family)
    vocab = tokenizer.vocabulary
    specials = [token for token in range(len(vocab)) if vocab.kind[token] in (Kind.SPECIAL, Kind.UNUSED)]
    assert specials
    for ids in tokenizer.tokenize_bytes([vocab.token_bytes[token] for token in specials]):
        assert ids
        assert not set(ids) & set(specials)


@pytest.mark.parametrize("family", makers.FAMILIES[:3])
def test_segment_keeps_the_ids_of_plain_tokens_between_control_tokens(edited, family: str) -> None:
    more = [(600, "[a]", True), (601, "[plain]", False), (602, "<unused77>", False), (603, "[other]", False)]
    tokenizer = read_tokenizer(edited(family, lambda spec: [add_token(*token)(spec) for token in more]))
    assert tokenizer.tokenize_bytes([b"[plain]", b"[other]"]) == [[601], [603]]
    assert not {600, 602} & {token for ids in tokenizer.tokenize_bytes([b"[a]", b"<unused77>"]) for token in ids}


@pytest.mark.parametrize("family", LOSSLESS)
def test_segment_finds_each_piece_that_a_text_is_cut_into(read, family: str) -> None:
    tokenizer = read(family)
    for token in set(tokenizer.encode(makers.shipped_text("english"))):
        surface = tokenizer.vocabulary.token_bytes[token]
        assert tokenizer.tokenize_bytes([surface]) == [[tokenizer.vocabulary.id_of[surface]]]


def test_segment_cuts_part_of_a_character_as_bytes(read) -> None:
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


def test_segment_merges_across_the_edge_of_a_character(read) -> None:
    tokenizer = read("byte-level", seed_text=["日本語 日記 日時"] * 3)
    pieces = [surface for surface in tokenizer.vocabulary.token_bytes if not surface.isascii() and len(surface) > 1]
    cut_off = [surface for surface in pieces if surface.decode(errors="replace")[-1] == "\ufffd"]
    assert cut_off
    assert tokenizer.tokenize_bytes(cut_off) == [[tokenizer.vocabulary.id_of[surface]] for surface in cut_off]


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
@pytest.mark.parametrize("surface", [b"the", b" the", b"  ", b"the ", b" "])
def test_segment_adds_no_space_and_strips_none(edited, family: str, change, surface: bytes) -> None:
    tokenizer = read_tokenizer(edited(family, change))
    assert spelled(tokenizer, tokenizer.tokenize_bytes([surface])[0]) == surface


def test_segment_leaves_out_what_it_cannot_spell(edited) -> None:

    def change(spec: dict[str, Any]) -> None:
        spec["model"]["byte_fallback"] = False

    tokenizer = read_tokenizer(edited("sentencepiece", change))
    assert spelled(tokenizer, tokenizer.tokenize_bytes(["the ☃ the".encode()])[0]) == b"the  the"
    assert tokenizer.tokenize_bytes(["☃☃".encode(), b""]) == [[], []]


def test_segment_of_wordpiece_knows_words_from_continuations(read) -> None:
    tokenizer = read("wordpiece")

    def pieces(surface: str) -> list[str]:
        return [tokenizer.vocabulary.text[token] for token in tokenizer.tokenize_bytes([surface.encode()])[0]]

    assert pieces(" the") == ["the"]
    assert pieces(" The") == ["the"]  # as its normalizer has it
    assert pieces("n") == ["##n"]
    assert pieces(" then")[0] == "the"
    assert all(piece.startswith("##") for piece in pieces("the") + pieces(" then")[1:])
    assert pieces(" the the") == ["the", "the"]
    assert pieces(" ☃") == []
    assert pieces(" the☃n") == ["the", "##n"]
    assert pieces(" the-the") == ["the", "-", "the"]
    assert pieces("  ") == []


def test_segment_of_wordpiece_without_a_pre_tokenizer(edited) -> None:
    tokenizer = read_tokenizer(edited("wordpiece", lambda spec: spec.update(pre_tokenizer=None, normalizer=None)))
    assert tokenizer.tokenize_bytes([b" the"]) == [[tokenizer.vocabulary.id_of[b" the"]]]


# Damaged and unsupported files


def word_level(spec: dict[str, Any]) -> None:
    spec["model"] = {"type": "WordLevel", "vocab": {"a": 0, "<unk>": 1}, "unk_token": "<unk>"}


def end_of_word(spec: dict[str, Any]) -> None:
    spec["model"]["end_of_word_suffix"] = "</w>"


def no_byte_level(spec: dict[str, Any]) -> None:
    spec |= {"pre_tokenizer": None, "decoder": None}


@pytest.mark.parametrize("change", [word_level, end_of_word, no_byte_level])
def test_unsupported_tokenizers_are_refused(edited, change) -> None:
    with pytest.raises(InputError) as caught:
        read_tokenizer(edited("byte-level", change))
    assert caught.value.code == "unsupported-tokenizer"


def set_model(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda spec: spec["model"].update(changes)


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


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("byte-level", lambda spec: spec.pop("model")),
        ("byte-level", lambda spec: spec.update(model=[])),
        ("byte-level", set_model(vocab=None)),
        ("byte-level", set_model(vocab={"a": "first"})),
        ("byte-level", set_model(vocab={"a": -1})),
        ("byte-level", set_model(vocab={"a": 1 << 40})),
        ("byte-level", lambda spec: spec["added_tokens"].append({"content": "no id"})),
        ("byte-level", lambda spec: spec["added_tokens"].append("no object")),
        ("unigram", set_model(vocab=[[]])),
        ("unigram", set_model(unk_id=10_000)),
    ],
)
def test_damaged_files_are_refused(edited, family: str, change) -> None:
    folder = edited(family, change)
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(InputError) as caught:
        read_tokenizer(folder)
    assert caught.value.code == "bad-tokenizer"


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe{}", b"[" * 100_000])
def test_files_that_are_no_json_object_are_refused(edited, name: str, content: bytes) -> None:
    folder = edited("byte-level", lambda spec: None)
    (folder / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_tokenizer(folder)
    assert caught.value.code == "bad-tokenizer"


def test_what_the_tokenizers_library_refuses_is_refused(edited) -> None:
    tokenizer = read_tokenizer(edited("byte-level", set_model(merges=["nothing like"])))
    with pytest.raises(InputError) as caught:
        tokenizer.encode("a")
    assert caught.value.code == "bad-tokenizer"


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError) as caught:
            read_tokenizer(path)
        assert caught.value.code == "missing-tokenizer"


# The files of a result


def write(files: dict[str, bytes | Path], folder: Path) -> Path:
    folder.mkdir()
    for name, content in files.items():
        if isinstance(content, Path):
            shutil.copy(content, folder / name)
        else:
            (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("family", makers.FAMILIES)
def test_output_files_copy_the_tokenizer(read, tokenizer_of, tmp_path: Path, family: str) -> None:
    source = tokenizer_of(family, chat_template="{{ messages }}")
    folder = write(read_tokenizer(source).output_files(), tmp_path / "out")
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (folder / name).read_bytes() == (source / name).read_bytes()
    assert {path.name for path in folder.iterdir()} == {path.name for path in source.iterdir()}
    text = makers.shipped_text("german")
    assert auto_tokenizer(folder)(text).input_ids == auto_tokenizer(source)(text).input_ids


@pytest.mark.parametrize("family", makers.FAMILIES)
def test_spec_bytes_is_the_same_json(tokenizer_of, family: str) -> None:
    spec = {**read_tokenizer(tokenizer_of(family)).spec, "half": "\ud800", "whole": "é▁"}
    assert json.loads(spec_bytes(spec)) == spec
    assert spec_bytes(spec).count(b"\n") == len(spec) + 1


SURFACES = [
    b" the",
    b"12345",
    b"  \n\n",
    "Straße".encode(),
    "日本".encode(),
    b"\xff\xe2\x82",
    b"<s>",
    b"<0x41>",
    b"<unused1>",
    b" a<pad>b ",
]


@pytest.mark.parametrize("family", ["byte-level", "sentencepiece"])
@given(surfaces=st.lists(st.binary(max_size=12) | st.sampled_from(SURFACES), min_size=1, max_size=6))
def test_a_few_surfaces_are_cut_as_all_are(tokenizer_of, family: str, surfaces: list[bytes]) -> None:
    """A tokenizer that has not loaded its model cuts them with the part of it that they reach."""
    whole = read_tokenizer(tokenizer_of(family))
    whole.tokenize_bytes([b" the " * 200])  # loads it
    few = dataclasses.replace(whole)
    assert few.tokenize_bytes(surfaces) == whole.tokenize_bytes(surfaces)
    assert "_bare" in vars(whole)
    assert "_bare" not in vars(few)


def test_a_pickled_tokenizer_needs_no_file(tokenizer_of, tmp_path: Path) -> None:
    folder = shutil.copytree(tokenizer_of("byte-level"), tmp_path / "mine")
    tokenizer = read_tokenizer(folder)
    ids, packed = tokenizer.encode("a ferry"), pickle.dumps(tokenizer)
    makers.edit_json(folder / "tokenizer.json", pre_tokenizer=None, normalizer={"type": "Lowercase"}, model={})
    assert pickle.loads(packed).encode("a ferry") == ids


def test_few_surfaces_with_an_added_token_outside_the_model(tokenizer_of, tmp_path: Path) -> None:
    folder = shutil.copytree(tokenizer_of("byte-level"), tmp_path / "more")
    spec = makers.read_json(folder / "tokenizer.json")
    token = len(read_tokenizer(folder).vocabulary)
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": token, "content": "@@", "special": False})
    makers.write_json(folder / "tokenizer.json", spec)
    assert token in read_tokenizer(folder).tokenize_bytes([b" a@@b"])[0]


def test_output_files_of_a_lone_file_of_any_name(tokenizer_of, tmp_path: Path) -> None:
    source = tokenizer_of("byte-level") / "tokenizer.json"
    shutil.copy(source, tmp_path / "mine.json")
    folder = write(read_tokenizer(tmp_path / "mine.json").output_files(), tmp_path / "out")
    assert (folder / "tokenizer.json").read_bytes() == source.read_bytes()
    assert auto_tokenizer(folder)("hello").input_ids == read_tokenizer(tmp_path / "mine.json").encode("hello")


def no_template(spec: dict[str, Any]) -> None:
    spec["post_processor"] = None


def template(*single: str) -> dict[str, Any]:
    ids = {"<|im_start|>": 1, "<|im_end|>": 2, "A": 0}
    parts = [
        {"Sequence": {"id": "A", "type_id": 0}} if part == "A" else {"SpecialToken": {"id": part, "type_id": 0}}
        for part in single
    ]
    known = {part: {"id": part, "ids": [ids[part]], "tokens": [part]} for part in single if part != "A"}
    pair = [*parts, {"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": parts, "pair": pair, "special_tokens": known}


BYTES_ONLY = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
TEMPLATES = {
    "none": None,
    "byte level": BYTES_ONLY,
    "ends with eos": template("A", "<|im_end|>"),
    "begins with bos": template("<|im_start|>", "A"),
    "begins with eos": template("<|im_end|>", "A"),
    "sequence of byte level": {"type": "Sequence", "processors": [BYTES_ONLY]},
    "sequence of two": {"type": "Sequence", "processors": [BYTES_ONLY, template("A", "<|im_end|>")]},
    "sequence with bos": {"type": "Sequence", "processors": [BYTES_ONLY, template("<|im_start|>", "A", "<|im_end|>")]},
    "roberta": {
        "type": "RobertaProcessing",
        "sep": ["<|im_end|>", 2],
        "cls": ["<|im_start|>", 1],
        "trim_offsets": True,
        "add_prefix_space": False,
    },
}


@pytest.mark.parametrize("flags", [{}, {"add_bos_token": False}], ids=["no flags", "add_bos_token false"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_output_files_with_bos_begin_with_it_once_and_change_nothing_else(
    edited, tmp_path: Path, name: str, flags: dict[str, bool]
) -> None:
    source = edited("byte-level", lambda spec: spec.update(post_processor=TEMPLATES[name]))
    makers.edit_json(source / "tokenizer_config.json", **flags)
    folder = write(read_tokenizer(source).output_files(bos=1), tmp_path / "out")
    loaded, loaded_source = auto_tokenizer(folder), auto_tokenizer(source)
    for text in ("", "the ferry", "  two  spaces\n"):
        before = loaded_source.encode(text)
        assert loaded.encode(text) == (before if before[:1] == [1] else [1, *before])
        assert loaded.encode(text, add_special_tokens=False) == loaded_source.encode(text, add_special_tokens=False)
    offsets, before = (t(" the ferry", return_offsets_mapping=True).offset_mapping for t in (loaded, loaded_source))
    assert offsets[-len(before) :] == before  # a byte-level post-processor trims them
    assert loaded.encode("the", "ferry").count(1) == 1
    assert loaded.bos_token_id == 1
    assert read_tokenizer(folder).adds_bos


@pytest.mark.parametrize("family", ["sentencepiece", "unigram"])
def test_output_files_with_bos_in_other_families(read, tokenizer_of, tmp_path: Path, family: str) -> None:
    source = read(family)
    bos = source.vocabulary.roles["bos"]
    folder = write(source.output_files(bos=bos), tmp_path / "out")
    text = makers.shipped_text("german")
    assert auto_tokenizer(folder).encode(text) == [bos, *auto_tokenizer(tokenizer_of(family)).encode(text)]


def test_output_files_with_bos_make_a_role_of_it(read, tmp_path: Path) -> None:
    folder = write(read("byte-level").output_files(bos=0), tmp_path / "out")
    assert auto_tokenizer(folder).bos_token == "<|endoftext|>"
    assert auto_tokenizer(folder).encode("a")[0] == 0


@tools.needs_release_5
@pytest.mark.parametrize("name", ["Qwen2TokenizerFast", "GPT2TokenizerFast", "LlamaTokenizerFast", "TokenizersBackend"])
@pytest.mark.parametrize("flags", [{}, {"add_bos_token": False}], ids=["no flags", "add_bos_token false"])
def test_output_files_with_bos_under_a_family_class(edited, tmp_path: Path, name: str, flags: dict[str, bool]) -> None:
    family = "sentencepiece" if name.startswith("Llama") else "byte-level"
    source = edited(family, lambda spec: None)
    makers.edit_json(source / "tokenizer_config.json", tokenizer_class=name, **flags)
    tokenizer = read_tokenizer(source)
    bos = tokenizer.vocabulary.roles["bos"]
    folder = write(tokenizer.output_files(bos=bos), tmp_path / "out")
    assert auto_tokenizer(folder).encode("the ferry") == [bos, *auto_tokenizer(source).encode("the ferry")]


def test_output_files_name_a_class_that_every_release_knows(edited, tmp_path: Path) -> None:
    source = edited("byte-level", lambda spec: None)
    for name in ("TokenizersBackend", ...):
        makers.edit_json(source / "tokenizer_config.json", tokenizer_class=name)
        config = json.loads(read_tokenizer(source).output_files()["tokenizer_config.json"])
        assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    makers.edit_json(source / "tokenizer_config.json", tokenizer_class="Qwen2TokenizerFast")
    config = json.loads(read_tokenizer(source).output_files()["tokenizer_config.json"])
    assert config["tokenizer_class"] == "Qwen2TokenizerFast"


@pytest.mark.parametrize("family", makers.FAMILIES)
def test_halves_join_to_their_token(family: str, read: Callable[..., Tokenizer]) -> None:
    tokenizer = read(family)
    surface, halves = tokenizer.vocabulary.token_bytes, tokenizer.merge_pairs()
    assert halves.shape == (len(tokenizer.vocabulary), 2)
    assert ((halves >= 0).all(axis=1) | (halves == -1).all(axis=1)).all()
    pairs = (halves[:, 0] >= 0).nonzero()[0].tolist()
    assert len(pairs) > 50
    assert all(surface[halves[n, 0]] + surface[halves[n, 1]] == surface[n] for n in pairs)
    assert all(tokenizer.vocabulary.kind[n] == Kind.NORMAL for n in pairs)
