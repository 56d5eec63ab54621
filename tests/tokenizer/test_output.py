from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import makers
import pytest
import tools

from tokswap.tokenizer.auto import auto_tokenizer
from tokswap.tokenizer.output import spec_bytes
from tokswap.tokenizer.tokenizer import read_tokenizer


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


def test_output_files_of_a_lone_file_of_any_name(tokenizer_of, tmp_path: Path) -> None:
    source = tokenizer_of("byte-level") / "tokenizer.json"
    shutil.copy(source, tmp_path / "mine.json")
    folder = write(read_tokenizer(tmp_path / "mine.json").output_files(), tmp_path / "out")
    assert (folder / "tokenizer.json").read_bytes() == source.read_bytes()
    assert auto_tokenizer(folder)("hello").input_ids == read_tokenizer(tmp_path / "mine.json").encode("hello")


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
    makers.edit_json(source / "tokenizer_config.json", tokenizer_class="GPT2TokenizerFast")
    config = json.loads(read_tokenizer(source).output_files()["tokenizer_config.json"])
    assert config["tokenizer_class"] == "GPT2TokenizerFast"
