from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokswap.tokenizer.alignment import CHAT_PRESETS, Alignment, Reason, align
from tokswap.tokenizer.tokenizer import read_tokenizer
from tokswap.tokenizer.vocabulary import ROLES, Kind, Vocabulary

NAMES = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<pad>", "<unk>", "<unused0>", "[X]"]


def vocabulary(*tokens: str | tuple[str, bytes, Kind], **roles: int) -> Vocabulary:
    """A token given as a text alone is a normal piece, a byte piece, reserved or special, by its looks."""
    text, token_bytes, kind = [], [], []
    for token in tokens:
        if isinstance(token, str):
            looks = (token[:1] + token[-1:], token[:3])
            if looks == ("<>", "<0x"):
                token = (token, bytes([int(token[3:-1], 16)]), Kind.BYTE)
            elif looks[0] in ("<>", "[]"):
                token = (token, token.encode(), Kind.UNUSED if "unused" in token else Kind.SPECIAL)
            else:
                token = (token, token.encode(), Kind.NORMAL if token else Kind.UNUSED)
        for values, value in zip((text, token_bytes, kind), token, strict=True):
            values.append(value)
    return Vocabulary(text, token_bytes, kind=np.array(kind, np.uint8), roles=roles)


def matches(alignment: Alignment) -> list[tuple[int, str]]:
    return [(int(s), Reason(r).name) for s, r in zip(alignment.source_of, alignment.reason, strict=True)]


def test_text_matches_by_bytes_and_the_rest_is_missing() -> None:
    found = align(vocabulary("a", "b", "c"), vocabulary("c", "x", "a"))
    assert matches(found) == [(2, "BYTES"), (-1, "MISSING"), (0, "BYTES")]
    assert found.source_of.dtype == np.int32
    assert found.shared.tolist() == [0, 2]
    assert found.missing.tolist() == [1]
    assert found.counts() == {"missing": 1, "bytes": 2}


def test_normal_pieces_match_each_other_past_byte_pieces() -> None:
    source = vocabulary("<0x41>", "A", "<0x42>", "C", "<0x44>", "<0x45>")
    found = align(vocabulary("A", "B", "<0x43>", "<0x44>", "<0x46>"), source)
    assert matches(found) == [(1, "BYTES"), (2, "BYTES"), (3, "BYTES"), (4, "BYTES"), (-1, "MISSING")]


def test_a_byte_piece_whose_byte_has_a_piece_never_gets_a_row() -> None:
    target = vocabulary("<0x41>", "A", "<0x42>")
    for source in (vocabulary("A"), vocabulary("<0x41>"), vocabulary("<0x41>", "A"), target):
        found = align(target, source)
        assert matches(found)[0] == (-1, "UNREACHABLE")
        assert matches(found)[1][1] == "BYTES"
        assert 0 in found.neutral
    assert matches(align(target, target))[2] == (2, "BYTES")
    assert matches(align(target, target, mapped={0: 1}))[0] == (1, "MAP")


def test_a_token_that_no_text_gives_neither_gives_nor_gets_a_row() -> None:
    hidden = dataclasses.replace(vocabulary(("ĠĠ", b"  ", Kind.NORMAL), "a", "  ", "für"), unproduced=frozenset({0, 3}))
    plain = vocabulary("für", "  ", "a")
    assert matches(align(hidden, plain)) == [(-1, "UNREACHABLE"), (2, "BYTES"), (1, "BYTES"), (-1, "UNREACHABLE")]
    assert matches(align(plain, hidden)) == [(-1, "MISSING"), (2, "BYTES"), (1, "BYTES")]
    assert align(hidden, plain).counts() == {"bytes": 2, "unreachable": 2}


def test_the_letter_is_not_the_byte_that_another_family_spells_with_it() -> None:
    byte_level = vocabulary(("é", b"\xe9", Kind.NORMAL), ("Ã©", "é".encode(), Kind.NORMAL))
    sentencepiece = vocabulary("é", "<0xE9>")
    assert matches(align(byte_level, sentencepiece)) == [(1, "BYTES"), (0, "BYTES")]
    assert matches(align(sentencepiece, byte_level)) == [(1, "BYTES"), (0, "BYTES")]


def test_a_special_token_never_matches_a_text_piece_of_the_same_bytes() -> None:
    special, text = ("[X]", b"[X]", Kind.SPECIAL), (" [X]", b"[X]", Kind.NORMAL)
    assert matches(align(vocabulary(special), vocabulary(text))) == [(-1, "NEUTRAL")]
    assert matches(align(vocabulary(text), vocabulary(special))) == [(-1, "MISSING")]


def test_specials_match_by_role_then_name_then_chat_preset() -> None:
    target = vocabulary("<|im_end|>", "<s>", "[X]", "<|im_start|>", "[Y]", eos=0)
    source = vocabulary("</s>", "<|im_end|>", "[X]", "<start_of_turn>", "<bos>", eos=0, bos=4)
    assert matches(align(target, source)) == [
        (0, "ROLE"),  # although the source has a token of this name
        (4, "PRESET"),
        (2, "TEXT"),
        (3, "PRESET"),
        (-1, "NEUTRAL"),
    ]


def test_the_name_says_more_than_pad_or_unk_do() -> None:
    target = vocabulary("<|endoftext|>", "<pad>", "<unk>", pad=0, unk=2)
    source = vocabulary("<|endoftext|>", "[PAD]", "[UNK]", pad=1, unk=2)
    assert matches(align(target, source)) == [(0, "TEXT"), (-1, "NEUTRAL"), (2, "ROLE")]
    assert matches(align(target, vocabulary("[PAD]", pad=0)))[0] == (0, "ROLE")


@pytest.mark.parametrize(("bos_first", "expected"), [(True, 1), (False, 2)])
def test_one_token_for_bos_and_eos_follows_the_one_that_the_source_needs(bos_first: bool, expected: int) -> None:
    target = vocabulary("<|endoftext|>", bos=0, eos=0, unk=0)
    source = vocabulary("<unk>", "<s>", "</s>", bos=1, eos=2, unk=0)
    assert matches(align(target, source, bos_first=bos_first)) == [(expected, "ROLE")]


def test_one_source_token_may_serve_several_target_roles() -> None:
    target = vocabulary("<s>", "</s>", "<unk>", bos=0, eos=1, unk=2)
    source = vocabulary("a", "<|endoftext|>", bos=1, eos=1, unk=1)
    found = align(target, source)
    assert matches(found) == [(1, "ROLE")] * 3
    assert [found.target_of(1), found.target_of(1, preferred=2), found.target_of(1, preferred=7)] == [0, 2, 0]
    assert found.target_of(0) is None


def test_unmatched_special_reserved_and_undefined_ids_are_neutral() -> None:
    found = align(vocabulary("[X]", "<unused3>", "", "a"), vocabulary("a", "<unused4>", ""))
    assert matches(found) == [(-1, "NEUTRAL")] * 3 + [(0, "BYTES")]
    assert found.neutral.tolist() == [0, 1, 2]


def test_reserved_ids_match_by_name() -> None:
    assert matches(align(vocabulary("<unused3>"), vocabulary("a", "<unused3>"))) == [(1, "TEXT")]


def test_rows_past_the_tokenizer_are_padding() -> None:
    found = align(vocabulary("a"), vocabulary("a"), rows=3)
    assert matches(found) == [(0, "BYTES"), (-1, "PADDING"), (-1, "PADDING")]
    assert found.neutral.tolist() == [1, 2]
    assert len(found) == 3


def test_rows_are_counted_by_script_and_kind() -> None:
    target = vocabulary("ab", "cd", "дом", "12", "  ", "<0x41>", "<s>", "<unused0>", bos=6)
    found = align(target, vocabulary("ab", "12", "<s>", bos=2), rows=10)
    assert target.groups() == [
        "Latin",
        "Latin",
        "Cyrillic",
        "digits",
        "white space",
        "byte pieces",
        "special tokens",
        "reserved",
    ]
    assert found.by_group(target) == {
        "Latin": {"bytes": 1, "missing": 1},
        "padding": {"padding": 2},
        "Cyrillic": {"missing": 1},
        "byte pieces": {"missing": 1},
        "special tokens": {"role": 1},
        "digits": {"bytes": 1},
        "reserved": {"neutral": 1},
        "white space": {"missing": 1},
    }


def test_what_the_user_names_overrides_everything() -> None:
    target, source = vocabulary("a", "<s>", "new", bos=1), vocabulary("a", "<s>", "b", bos=1)
    found = align(target, source, mapped={0: 2, 1: 0, 2: 2})
    assert matches(found) == [(2, "MAP"), (0, "MAP"), (2, "MAP")]


@pytest.mark.parametrize("row", CHAT_PRESETS)
def test_every_chat_marker_finds_every_other_of_its_row(row: tuple[str, ...]) -> None:
    for target in row:
        for source in row:
            token = (target, target.encode(), Kind.SPECIAL), (source, source.encode(), Kind.SPECIAL)
            assert align(vocabulary(token[0]), vocabulary(token[1])).source_of.tolist() == [0]


@pytest.mark.parametrize(
    ("source_of", "reason"),
    [
        (np.array([0], np.int64), np.array([Reason.BYTES], np.uint8)),
        (np.array([0], np.int32), np.array([], np.uint8)),
        (np.array([0], np.int32), np.array([Reason.MISSING], np.uint8)),
        (np.array([-1], np.int32), np.array([Reason.BYTES], np.uint8)),
    ],
)
def test_an_inconsistent_alignment_is_refused(source_of: np.ndarray, reason: np.ndarray) -> None:
    with pytest.raises(ValueError, match="source"):
        Alignment(source_of, reason)


def test_the_key_of_a_reason_in_reports() -> None:
    names = "missing bytes role text preset map neutral padding observed forced scaffold unreachable"
    assert [reason.key for reason in Reason] == names.split()


@st.composite
def vocabularies(draw: st.DrawFn) -> Vocabulary:
    piece = st.sampled_from([b"a", b"b", b" a", b"\n", b"\xc3", "é".encode()])
    tokens = draw(
        st.lists(
            st.one_of(
                st.builds(lambda token_bytes: (repr(token_bytes), token_bytes, Kind.NORMAL), piece),
                st.builds(lambda byte: f"<0x{byte:02X}>", st.sampled_from([0x0A, 0x61, 0xC3])),
                st.sampled_from([*NAMES, ""]),
            ),
            min_size=1,
            max_size=12,
        )
    )
    plain = vocabulary(*tokens)
    specials = np.flatnonzero(plain.kind == Kind.SPECIAL).tolist()
    roles = draw(st.dictionaries(st.sampled_from(ROLES), st.sampled_from(specials))) if specials else {}
    text = np.flatnonzero(np.isin(plain.kind, (Kind.NORMAL, Kind.BYTE))).tolist()
    unproduced = draw(st.sets(st.sampled_from(text), max_size=2)) if text else set()
    return dataclasses.replace(plain, roles=roles, unproduced=frozenset(unproduced))


def given_for(vocab: Vocabulary, token_bytes: bytes) -> int | None:
    """The id that text is tokenized into: the first normal piece that text can give, else the first byte piece."""
    same = [n for n in range(len(vocab)) if vocab.token_bytes[n] == token_bytes and n not in vocab.unproduced]
    same = [n for n in same if vocab.kind[n] in (Kind.NORMAL, Kind.BYTE)]
    return min(same, key=lambda n: (vocab.kind[n] == Kind.BYTE, n), default=None)


def is_given(vocab: Vocabulary, token: int) -> bool:
    """Whether text can be tokenized into a text token."""
    is_byte = vocab.kind[token] == Kind.BYTE
    return token not in vocab.unproduced and (not is_byte or given_for(vocab, vocab.token_bytes[token]) == token)


@given(vocabularies(), vocabularies(), st.integers(0, 3), st.booleans(), st.data())
def test_every_row_has_a_source_that_its_reason_explains(
    target: Vocabulary, source: Vocabulary, padding: int, bos_first: bool, data: st.DataObject
) -> None:
    ids = st.integers(0, len(target) - 1), st.integers(0, len(source) - 1)
    mapped = data.draw(st.dictionaries(*ids, max_size=2))
    found = align(target, source, rows=len(target) + padding, mapped=mapped, bos_first=bos_first)

    assert len(found) == len(target) + padding
    assert found.reason[len(target) :].tolist() == [Reason.PADDING] * padding
    assert sorted([*found.shared, *found.missing, *found.neutral]) == list(range(len(found)))
    for token, (origin, reason) in enumerate(matches(found)[: len(target)]):
        assert -1 <= origin < len(source)
        is_text = target.kind[token] in (Kind.NORMAL, Kind.BYTE)
        if token in mapped:
            assert (origin, reason) == (mapped[token], "MAP")
        elif is_text and not is_given(target, token):
            assert reason == "UNREACHABLE"
        elif is_text:
            there = given_for(source, target.token_bytes[token])
            assert (origin, reason) == ((-1, "MISSING") if there is None else (there, "BYTES"))
        else:
            assert reason in ("ROLE", "TEXT", "PRESET", "NEUTRAL")
        if reason == "BYTES":
            assert target.token_bytes[token] == source.token_bytes[origin]
            assert source.kind[origin] in (Kind.NORMAL, Kind.BYTE)
        elif reason == "ROLE":
            assert set(target.roles_of(token)) & set(source.roles_of(origin))
        elif reason == "TEXT":
            assert target.text[token] == source.text[origin]
        elif reason == "PRESET":
            assert any({target.text[token], source.text[origin]} <= set(row) for row in CHAT_PRESETS)


@given(vocabularies())
def test_a_vocabulary_aligned_with_itself_keeps_every_text_and_every_special_token(vocab: Vocabulary) -> None:
    found = align(vocab, vocab)
    for token, (origin, _) in enumerate(matches(found)):
        if not vocab.text[token]:
            assert origin == -1
        elif vocab.kind[token] in (Kind.NORMAL, Kind.BYTE):
            assert origin == (given_for(vocab, vocab.token_bytes[token]) if is_given(vocab, token) else -1)
        else:
            assert vocab.text[origin] == vocab.text[token] or set(vocab.roles_of(token)) & set(vocab.roles_of(origin))


def test_real_families_agree_on_letters_spaces_and_line_breaks(tokenizer_of) -> None:
    gpt, gemma = (read_tokenizer(tokenizer_of(family)).vocabulary for family in ("byte-level", "sentencepiece"))
    found = align(gpt, gemma)

    def source_text(text: str) -> str | None:
        origin = int(found.source_of[gpt.id_of_text[text]])
        return gemma.text[origin] if origin >= 0 else None

    assert source_text("Ċ") == "<0x0A>"
    assert source_text("ĠĠ") == "▁▁"
    assert source_text("Ġ") == "▁"
    assert source_text("A") == "A"
    assert source_text("Ã") == "<0xC3>"
    assert source_text("é") == "<0xE9>"  # this byte, never the letter
    assert source_text("<|im_start|>") == "<bos>"
    assert source_text("<|reserved_special_token_0|>") is None


@pytest.mark.parametrize("other", ["byte-level", "sentencepiece", "unigram"])
def test_punctuation_of_wordpiece_stands_with_and_without_a_space(tokenizer_of, other: str) -> None:
    """AutoTokenizer says which token a mark after a word is, on both sides."""
    from transformers import AutoTokenizer

    folders = tokenizer_of("wordpiece"), tokenizer_of(other)
    bert, theirs = (AutoTokenizer.from_pretrained(folder) for folder in folders)
    vocabularies = [read_tokenizer(folder).vocabulary for folder in folders]
    there, back = align(*reversed(vocabularies)), align(*vocabularies)
    tried = 0
    for mark in ".,:;!?()\"'-/":
        ids = [tokenizer.encode(f"harbour{mark}", add_special_tokens=False)[-1] for tokenizer in (bert, theirs)]
        if [bert.decode(ids[0]), theirs.decode(ids[1])] == [mark, mark]:
            assert (there.source_of[ids[1]], back.source_of[ids[0]]) == tuple(ids)
            tried += 1
        continued = vocabularies[0].id_of_text.get(f"##{mark}")
        assert continued is None or back.reason[continued] == Reason.UNREACHABLE
    assert tried > 5
