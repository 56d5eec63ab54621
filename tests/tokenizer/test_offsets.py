from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import makers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers import copy_model, edit_json, read_json, shipped_text, write_json

from tokswap.tokenizer.auto import auto_tokenizer
from tokswap.tokenizer.offsets import encode_with_offsets
from tokswap.tokenizer.probes import TEXTS
from tokswap.tokenizer.tokenizer import read_tokenizer

Make = Callable[..., Path]

SAMPLE = "".join(TEXTS.values()) + "".join(shipped_text(name)[:300] for name in ("code", "japanese", "arabic"))


@pytest.mark.parametrize("family", ["byte-level", "sentencepiece"])
@pytest.mark.parametrize("adds_bos", [True, False])
def test_a_token_stands_for_its_own_bytes(family: str, adds_bos: bool, tokenizer_of: Make) -> None:
    folder = tokenizer_of(family, adds_bos=adds_bos)
    token_bytes = read_tokenizer(folder).vocabulary.token_bytes
    ids, offsets = encode_with_offsets(auto_tokenizer(folder), SAMPLE)
    whole = SAMPLE.encode()
    assert len(offsets) == len(ids) + 1
    assert [whole[a:b] for a, b in itertools.pairwise(offsets)] == [token_bytes[n] for n in ids]


def test_a_space_before_every_text_has_no_byte(tokenizer_of: Make, tmp_path: Path) -> None:
    folder = copy_model(tokenizer_of("byte-level"), tmp_path / "prefix")
    spec = read_json(folder / "tokenizer.json")
    spec["pre_tokenizer"]["add_prefix_space"] = True
    write_json(folder / "tokenizer.json", spec)
    edit_json(folder / "tokenizer_config.json", add_prefix_space=True)  # transformers 4 goes by this one
    tokenizer = auto_tokenizer(folder)
    ids, offsets = encode_with_offsets(tokenizer, "the bridge")
    assert tokenizer.convert_ids_to_tokens(int(ids[0])).startswith("Ġ")
    token_bytes = read_tokenizer(folder).vocabulary.token_bytes
    assert offsets.tolist()[-1] == len("the bridge")
    assert offsets[1] == len(token_bytes[ids[0]]) - 1


def test_a_tokenizer_that_changes_the_text_is_good_to_a_character(tokenizer_of: Make, tmp_path: Path) -> None:
    folder = copy_model(tokenizer_of("wordpiece"), tmp_path / "lower")
    spec = read_json(folder / "tokenizer.json")
    spec["normalizer"] = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": True,
        "lowercase": True,
    }
    write_json(folder / "tokenizer.json", spec)
    text = "The  Café was\n closed. "
    tokenizer = auto_tokenizer(folder)
    ids, offsets = encode_with_offsets(tokenizer, text)
    parts = [text.encode()[a:b].decode() for a, b in itertools.pairwise(offsets)]
    assert "".join(parts) == text
    tokens = [token.removeprefix("##") for token in tokenizer.convert_ids_to_tokens(ids)]
    assert [part.strip().lower().replace("é", "e") for part in parts] == tokens


@pytest.mark.parametrize("family", makers.FAMILIES)
@given(text=st.text(max_size=40))
def test_offsets_go_through_any_text_in_order(family: str, text: str, tokenizer_of: Make) -> None:
    ids, offsets = encode_with_offsets(_loaded(tokenizer_of(family)), text)
    assert len(offsets) == len(ids) + 1
    assert offsets[0] == 0
    assert offsets[-1] == (len(text.encode()) if len(ids) else 0)
    assert (offsets[1:] >= offsets[:-1]).all()


_TOKENIZERS: dict[Path, object] = {}


def _loaded(folder: Path) -> object:
    if folder not in _TOKENIZERS:
        _TOKENIZERS[folder] = auto_tokenizer(folder)
    return _TOKENIZERS[folder]
