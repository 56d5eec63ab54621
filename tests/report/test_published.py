"""What is published of a result: no path of the machine that made it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import tokswap
from tokswap.report.published import published_files

Make = Callable[..., Path]


def test_no_path_of_this_machine_is_published(model_of: Make, tmp_path: Path) -> None:
    source, target, out = model_of("llama"), model_of("gpt2"), tmp_path / "out"
    tokswap.transplant_tokenizer(source, target, init="mean", out=out, tie=None)
    before = (out / "tokswap.json").read_bytes()
    assert str(source).encode() in before
    found = published_files(out)
    assert list(found) == ["tokswap.json"]
    assert b"pytest-of" not in found["tokswap.json"]
    assert (out / "tokswap.json").read_bytes() == before, "later commands find the source by it"
    public, own = json.loads(found["tokswap.json"]), json.loads(before)
    assert public["plan"]["model"] == source.name
    assert public["tokens"] == own["tokens"]
    assert b"pytest-of" not in (out / "README.md").read_bytes()


def test_paths_in_sentences_and_of_the_hub(tmp_path: Path) -> None:
    cached = tmp_path / "models--me--small" / "snapshots" / "abc"
    note = f"its teacher is {cached}, not {tmp_path / 'big'}, and <|/srv/x/y|> is a token"
    heal = {"model": str(tmp_path / "big"), "teacher": str(cached), "notes": [note], "options": {"chats": []}}
    document = {"format": 2, "heal": heal, "worst": [["/usr/share/token", 0.5]]}
    (tmp_path / "tokswap.json").write_text(json.dumps(document), "utf-8")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path / "b")}), "utf-8")
    found = {name: json.loads(content) for name, content in published_files(tmp_path).items()}
    assert found["tokswap.json"]["heal"]["notes"] == ["its teacher is me/small, not big, and <|/srv/x/y|> is a token"]
    assert found["tokswap.json"]["worst"] == [["/usr/share/token", 0.5]]
    assert found["adapter_config.json"] == {"base_model_name_or_path": "b"}


def test_where_a_model_was_saved_before_is_not_published(tmp_path: Path) -> None:
    """transformers wrote it in config.json, and in that of the tokenizer."""
    part = {"_name_or_path": "/home/me/vision", "name": "/home/me/kept"}
    for name, config in {
        "config.json": {"_name_or_path": "/home/me/models/base", "vision_config": part, "vocab_size": 7},
        "tokenizer_config.json": {"name_or_path": "/home/me/models/base", "tokenizer_file": "/home/me/tokenizer.json"},
        "generation_config.json": {"_name_or_path": "org/name"},
    }.items():
        (tmp_path / name).write_text(json.dumps(config), "utf-8")
    found = {name: json.loads(content) for name, content in published_files(tmp_path).items()}
    assert found == {
        "config.json": {
            "_name_or_path": "base",
            "vision_config": {"_name_or_path": "vision", "name": "/home/me/kept"},
            "vocab_size": 7,
        },
        "tokenizer_config.json": {"name_or_path": "base", "tokenizer_file": "tokenizer.json"},
    }
