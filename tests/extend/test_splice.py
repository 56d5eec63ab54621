"""New tokens come out, and no text without one is tokenized differently: checked with plain transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import makers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tokswap.extend import splice
from tokswap.extend.splice import Extended, extended
from tokswap.extend.terms import screen
from tokswap.tokenizer import backend
from tokswap.tokenizer.output import spec_bytes
from tokswap.tokenizer.probes import mixed_texts
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer

Make = Callable[..., Path]
TERMS = (
    "harbourmaster",
    "Brückenbau",
    "ferry",
    "ferryman",
    "ferrymen",
    "zugfahrt",
    "banana",
    "bananana",
    "aaaa",
    "=>>",
)
WORDS = sorted({word for text in makers.shipped_texts() for word in text.split()})
KINDS = [*makers.FAMILIES, "with added tokens past the model", "whole words first", "merges as strings"]


@pytest.fixture(scope="module", params=KINDS)
def source(request: pytest.FixtureRequest, tokenizer_of: Make, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    if request.param in makers.FAMILIES:
        return read_tokenizer(tokenizer_of(request.param, vocab_size=900))
    folder = makers.copy_model(tokenizer_of("byte-level", vocab_size=900), tmp_path_factory.mktemp("t") / "made")
    spec = makers.read_json(folder / "tokenizer.json")
    if request.param == "with added tokens past the model":  # Qwen's kind: the library numbers them after the model
        first = spec["added_tokens"][0]
        spec["added_tokens"] += [
            {**first, "id": 900 + n, "content": text, "special": n == 0}
            for n, text in enumerate(("<|tool|>", "<think>"))
        ]
    elif request.param == "whole words first":
        spec["model"]["ignore_merges"] = True
    else:
        spec["model"]["merges"] = [" ".join(pair) for pair in spec["model"]["merges"]]
    makers.write_json(folder / "tokenizer.json", spec)
    return read_tokenizer(folder)


@pytest.fixture(scope="module")
def found(source: Tokenizer) -> Extended:
    return extended(source, screen(source, TERMS, "auto").tokens)


@pytest.fixture(scope="module")
def pair(source: Tokenizer, found: Extended, tmp_path_factory: pytest.TempPathFactory) -> tuple[object, object]:
    """Both tokenizers as transformers loads them."""
    folder = tmp_path_factory.mktemp("written")
    (folder / "tokenizer.json").write_bytes(spec_bytes(found.tokenizer.spec))
    makers.write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    return AutoTokenizer.from_pretrained(source.path), AutoTokenizer.from_pretrained(folder)


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


texts = st.lists(
    st.sampled_from(WORDS) | st.sampled_from([*TERMS, " ", "\n", "日本語", "7", "é", "x" * 9, "<|tool|>", "<think>"]),
    min_size=1,
    max_size=12,
)


def check(pair: tuple[PreTrainedTokenizerFast, ...], found: Extended, text: str, family: str) -> None:
    before, after = (ids(one, text) for one in pair)
    new = [token for token in after if token >= found.first]
    if not new:
        assert after == before
    elif family.endswith("BPE"):  # new merges come last, so undoing them gives the old tokens
        while any(token >= found.first for token in after):
            after = [p for t in after for p in ((t,) if t < found.first else found.parts[t - found.first])]
        assert after == before


@settings(max_examples=40)
@given(words=texts, joint=st.sampled_from(["", " ", "  "]))
def test_texts_without_a_new_token_keep_their_tokenization(
    pair: tuple[PreTrainedTokenizerFast, ...], found: Extended, source: Tokenizer, words: list[str], joint: str
) -> None:
    check(pair, found, joint.join(words), source.family)


def test_odd_texts(pair: tuple[PreTrainedTokenizerFast, ...], found: Extended, source: Tokenizer) -> None:
    for text in mixed_texts(["<|tool|>", "<think>", "<s>"]):
        check(pair, found, text, source.family)


def test_new_tokens_come_out(pair: tuple[PreTrainedTokenizerFast, ...], found: Extended) -> None:
    assert sum(found.asked) >= 6
    assert set(found.skipped) <= {b"=>>"}  # not every small vocabulary can spell it
    for n, token_bytes in enumerate(found.token_bytes):
        if found.asked[n]:
            text = token_bytes.decode()
            assert any(found.first + n in ids(pair[1], before + text) for before in ("", "a", "(")), text


def test_old_ids_keep_their_tokens(pair: tuple[PreTrainedTokenizerFast, ...], found: Extended) -> None:
    before, after = pair
    assert before.convert_ids_to_tokens(range(found.first)) == after.convert_ids_to_tokens(range(found.first))
    assert len(after) == found.first + len(found)
    assert before.get_added_vocab() == after.get_added_vocab()


def test_a_longer_term_wins_over_a_shorter_one(source: Tokenizer, tmp_path: Path) -> None:
    for terms in (("harbour", "harbourmaster"), ("harbourmaster", "harbour")):
        found = extended(source, [f" {term}".encode() for term in terms])
        assert all(sum(found.asked) == 2 and not found.skipped for _ in terms)


def test_tokens_on_the_way_are_counted(tokenizer_of: Make) -> None:
    source = read_tokenizer(tokenizer_of("byte-level", vocab_size=900))
    pieces = source.tokenize_bytes([b" harbourmaster"])[0]
    found = extended(source, [b" harbourmaster"])
    assert len(found) == len(pieces) - 1 > 1
    assert [n for n, asked in enumerate(found.asked) if asked] == [len(found) - 1]


def test_a_merge_never_makes_an_old_token(tokenizer_of: Make, tmp_path: Path) -> None:
    """An old token that no merge makes stays unmade: texts that hold it have other tokens."""
    folder = makers.copy_model(tokenizer_of("byte-level", vocab_size=600), tmp_path / "made")
    spec = makers.read_json(folder / "tokenizer.json")
    spec["model"]["vocab"] |= {"qq": 600}  # on the way from q to qqx
    makers.write_json(folder / "tokenizer.json", spec)
    source = read_tokenizer(folder)
    found = extended(source, [b"qqx"])
    assert source.encode("qqz") == found.tokenizer.encode("qqz")
    assert found.tokenizer.encode("qqx") == [found.first + len(found) - 1]


def test_scores_of_unknown_characters_stay(tokenizer_of: Make) -> None:
    """The library derives the score of the unknown token from the lowest one."""
    source = read_tokenizer(tokenizer_of("unigram", vocab_size=900))
    found = extended(source, [b" harbourmastersassociation"])
    lowest = [min(score for _, score in one.spec["model"]["vocab"]) for one in (source, found.tokenizer)]
    assert lowest[0] == lowest[1]


def test_a_score_just_above_that_of_the_pieces(tokenizer_of: Make, tmp_path: Path) -> None:
    """A new token wins over its pieces, and not over tokens that its neighbours would take with them."""
    folder = makers.copy_model(tokenizer_of("unigram", vocab_size=900), tmp_path / "made")
    spec = makers.read_json(folder / "tokenizer.json")
    spec["model"]["vocab"][-1][1] = -100.0
    makers.write_json(folder / "tokenizer.json", spec)
    source = read_tokenizer(folder)
    found = extended(source, [b" ferryman", b" ferry"])
    assert list(found.asked) == [True, True]
    score = dict(map(tuple, found.tokenizer.spec["model"]["vocab"]))
    for name, parts in (("▁ferryman", found.parts[0]), ("▁ferry", found.parts[1])):
        pieces = sum(score[found.tokenizer.vocabulary.text[part]] for part in parts)
        assert pieces < score[name] < pieces + 0.01
    assert found.tokenizer.encode("a ferryman")[-1] == found.first


def test_many_added_tokens_are_looked_at_at_once(
    tokenizer_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokenizer was built anew for each of them: Gemma 3 has 6,242."""
    folder = makers.copy_model(tokenizer_of("sentencepiece", vocab_size=900), tmp_path / "made")
    spec = makers.read_json(folder / "tokenizer.json")
    last = spec["added_tokens"][-1]
    spec["added_tokens"] += [
        {**last, "id": 900 + n, "content": f"<unused{6 + n}>", "single_word": True} for n in range(50)
    ]
    makers.write_json(folder / "tokenizer.json", spec)
    calls = []
    monkeypatch.setattr(splice, "model_texts", lambda *given: calls.append(given) or backend.model_texts(*given))
    extended(read_tokenizer(folder), [b" harbourmaster"])
    assert [len(texts) for _, texts, _ in calls] == [50]
