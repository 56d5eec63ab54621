"""Which of several ids a text is tokenized into. The tokenizers library has the last word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from specs import added

from tokswap.tokenizer.tokenizer import read_tokenizer

Make = Callable[..., Path]
Spec = dict[str, Any]
TEXTS = {"seed_text": ["nő és nők  nő  a nővér,   idő is dió\n\nqu quo\n" * 3]}


def ids_of(spec: Spec) -> dict[str, int]:
    vocab = spec["model"]["vocab"]
    return dict(vocab) if isinstance(vocab, dict) else {piece: n for n, (piece, _) in enumerate(vocab)}


def encode(folder: Path, text: str) -> list[int]:
    from tokenizers import Tokenizer

    return list(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids)


def unreachable(folder: Path) -> set[str]:
    vocab = read_tokenizer(folder).vocabulary
    return {vocab.text[token] for token in np.flatnonzero(vocab.unreachable).tolist()}


def no_bytes(tokens: set[str]) -> set[str]:
    return {token for token in tokens if not token.startswith("<0x")}


@pytest.fixture(scope="session")
def grown(tokenizer_of: Make, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, int]]:
    """Return a tokenizer with added tokens past its last one, and the id of the first of them."""

    def grow(family: str, *contents: str, change: Callable[[Spec], object] | None = None, **flags: bool) -> Any:
        folder = makers.copy_model(tokenizer_of(family, **TEXTS), tmp_path_factory.mktemp("grown") / family)
        spec, first = makers.read_json(folder / "tokenizer.json"), makers.tokenizer_size(folder)
        ids = ids_of(spec)
        new = [content for content in contents if content not in ids]
        ids |= {content: first + n for n, content in enumerate(new)}
        spec["added_tokens"] += [{**added(ids[content], content), **flags} for content in contents]
        if change is not None:
            change(spec)
        makers.write_json(folder / "tokenizer.json", spec)
        return folder, first

    return grow


@pytest.mark.parametrize("normalized", [False, True])
def test_a_model_token_with_an_added_token_inside_is_never_produced(grown, normalized: bool) -> None:
    """GPT-NeoX adds runs of spaces and DeepSeek letters, which their models have too, spelled in bytes."""
    folder, first = grown("byte-level", "  ", "ő", normalized=normalized)
    vocab = read_tokenizer(folder).vocabulary
    assert encode(folder, "a  b")[1] == first
    assert encode(folder, "nő")[-1] == first + 1
    assert [vocab.id_of[b"  "], vocab.id_of["ő".encode()]] == [first, first + 1]
    assert {"ĠĠ", "ĠĠĠ", "ÅĳĠ", "nÅĳ"} & set(vocab.text) <= unreachable(folder)
    assert {"ĠĠ", "nÅĳ"} <= unreachable(folder)
    assert all("ĠĠ" in text or "Åĳ" in text for text in unreachable(folder))


def test_the_normalizer_decides_what_a_normalized_token_is_found_as(grown) -> None:
    def compose(spec: Spec) -> None:
        spec["normalizer"] = {"type": "NFC"}

    folder, first = grown("byte-level", "o\u030b", change=compose, normalized=True)
    assert encode(folder, "nő")[-1] == first
    assert "nÅĳ" in unreachable(folder)
    folder, first = grown("byte-level", "o\u030b", change=compose, normalized=False)
    assert encode(folder, "nő")[-1] != first
    assert unreachable(folder) == set()


@pytest.mark.parametrize("flags", [{"single_word": True}, {"special": True}])
def test_a_token_that_is_not_found_everywhere_hides_nothing(grown, flags: dict[str, bool]) -> None:
    assert unreachable(grown("byte-level", "ő", **flags)[0]) == set()


def test_a_token_outside_the_byte_alphabet_is_never_produced(grown) -> None:
    """Command-R has `™` in its model twice, once as a character that no text is spelled with."""

    def rename(spec: Spec) -> None:
        vocab, merges = spec["model"]["vocab"], spec["model"]["merges"]
        vocab["ő"] = vocab.pop("qu")
        spec["model"]["merges"] = [pair for pair in merges if "qu" not in "".join(pair).replace(" ", "")]
        vocab.pop("quo", None)

    folder, _ = grown("byte-level", change=rename)
    vocab = read_tokenizer(folder).vocabulary
    assert [vocab.text[token] for token in encode(folder, "ő")] == ["Åĳ"]
    assert vocab.text[vocab.id_of["ő".encode()]] == "Åĳ"
    assert unreachable(folder) == {"ő"}


@pytest.mark.parametrize("family", ["sentencepiece", "unigram"])
def test_a_token_with_a_space_where_the_model_gets_a_mark_is_never_produced(grown, family: str) -> None:
    def rename(spec: Spec) -> None:
        model, old = spec["model"], "▁qu"
        if family == "unigram":
            model["vocab"] = [[" nő" if piece == old else piece, score] for piece, score in model["vocab"]]
        else:
            model["vocab"][" nő"] = model["vocab"].pop(old)
            model["merges"] = [pair for pair in model["merges"] if old not in "".join(pair)]
            model["vocab"].pop("▁quo", None)

    folder, _ = grown(family, change=rename)
    assert no_bytes(unreachable(folder)) == {" nő"}
    vocab = read_tokenizer(folder).vocabulary
    assert vocab.text[vocab.id_of[" nő".encode()]] == "▁nő"


@pytest.mark.parametrize(
    ("content", "normalized", "cut_out"), [("▁▁▁", False, False), ("  ", False, True), ("  ", True, True)]
)
def test_sentencepiece_writes_spaces_otherwise_than_a_text(
    grown, content: str, normalized: bool, cut_out: bool
) -> None:
    """Gemma adds its runs of `▁`, which no text contains: the model joins spaces itself."""
    folder, first = grown("sentencepiece", content, normalized=normalized)
    assert (encode(folder, "a  b")[1] == first) == cut_out
    assert ("▁▁" in unreachable(folder)) == cut_out
    assert all("▁▁" in text for text in no_bytes(unreachable(folder)))
    assert {"<0x6E>", "<0x20>"} <= unreachable(folder)  # of n and the space; Z has no piece
    assert "<0x5A>" not in unreachable(folder)


@pytest.mark.parametrize("family", makers.FAMILIES)
def test_a_model_token_that_is_added_again_is_produced(grown, family: str) -> None:
    text = "is" if family != "wordpiece" else "##s"
    chosen = text

    def add_again(spec: Spec) -> None:
        ids = ids_of(spec)
        nonlocal chosen
        chosen = text if text in ids else next(piece for piece in ids if piece.isalpha())
        spec["added_tokens"].append(added(ids[chosen], chosen))

    folder, _ = grown(family, change=add_again)
    assert chosen not in unreachable(folder)
    assert all(chosen in token for token in no_bytes(unreachable(folder)))


@pytest.fixture(scope="session")
def never_given(grown) -> Callable[[str], tuple[set[int], Any]]:
    """Return the unreachable ids of a tokenizer with added tokens, and the tokenizer of the library."""
    from tokenizers import Tokenizer

    made: dict[str, tuple[set[int], Any]] = {}

    def find(family: str) -> tuple[set[int], Any]:
        if family not in made:
            folder, _ = grown(family, "  ", "ő", "dió", normalized=True)
            never = set(np.flatnonzero(read_tokenizer(folder).vocabulary.unreachable).tolist())
            made[family] = never, Tokenizer.from_file(str(folder / "tokenizer.json"))
        return made[family]

    return find


@pytest.mark.parametrize("family", makers.FAMILIES)
@given(text=st.text(st.sampled_from("nőo\u030b dióesNQuq.,\n\t0<x▁é🙂"), max_size=30))
def test_no_text_gives_an_unreachable_token(never_given, family: str, text: str) -> None:
    never, backend = never_given(family)
    assert never
    assert not never & set(backend.encode(text, add_special_tokens=False).ids)
