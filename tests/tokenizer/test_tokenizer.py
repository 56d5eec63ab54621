from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import makers
import pytest
from specs import set_model

from tokswap.errors import InputError
from tokswap.tokenizer.tokenizer import read_tokenizer


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


@pytest.mark.parametrize("in_config", [False, True])
def test_chat_template(tmp_path: Path, in_config: bool) -> None:
    folder = makers.make_tokenizer("byte-level", tmp_path, chat_template=None if in_config else makers.CHAT_TEMPLATE)
    if in_config:
        assert read_tokenizer(folder).chat_templates == {}
        makers.edit_json(folder / "tokenizer_config.json", chat_template=makers.CHAT_TEMPLATE)
    assert read_tokenizer(folder).chat_templates == {"default": makers.CHAT_TEMPLATE}


def test_a_pickled_tokenizer_needs_no_file(tokenizer_of, tmp_path: Path) -> None:
    folder = shutil.copytree(tokenizer_of("byte-level"), tmp_path / "mine")
    tokenizer = read_tokenizer(folder)
    ids, packed = tokenizer.encode("a ferry"), pickle.dumps(tokenizer)
    makers.edit_json(folder / "tokenizer.json", pre_tokenizer=None, normalizer={"type": "Lowercase"}, model={})
    assert pickle.loads(packed).encode("a ferry") == ids


# Damaged files


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
    folder = edited("byte-level", set_model(merges=["nothing like"]))
    for refused in (lambda: read_tokenizer(folder), lambda: read_tokenizer(folder / "tokenizer.json").encode("a")):
        with pytest.raises(InputError) as caught:
            refused()
        assert caught.value.code == "bad-tokenizer"


def test_added_tokens_whose_ids_the_library_would_change_are_refused(edited) -> None:
    def leave_a_gap(spec: dict) -> None:
        spec["added_tokens"].append({**spec["added_tokens"][0], "id": 5000, "content": "<far away>", "special": True})

    folder = edited("byte-level", leave_a_gap)
    for refused in (lambda: read_tokenizer(folder), lambda: read_tokenizer(folder / "tokenizer.json").encode("text")):
        with pytest.raises(InputError) as caught:
            refused()
        assert caught.value.code == "bad-tokenizer"
        assert "5000" in caught.value.message


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError) as caught:
            read_tokenizer(path)
        assert caught.value.code == "missing-tokenizer"
