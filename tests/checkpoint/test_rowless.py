"""Tokens past the vocabulary matrices of their model: left out where no text needs them, and refused where one does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import pytest
from commands import run
from makers import copy_model, edit_json, read_json, write_json

from tokswap.checkpoint.source import open_source
from tokswap.errors import InputError

Make = Callable[..., Path]
FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def with_tokens(source: Path, folder: Path, *tokens: str, **roles: Any) -> Path:
    """A model whose tokenizer has special tokens past its rows."""
    copy_model(source, folder)
    spec, size = read_json(folder / "tokenizer.json"), makers.tokenizer_size(folder)
    spec["added_tokens"] += [{"id": size + n, "content": token, **FLAGS} for n, token in enumerate(tokens)]
    write_json(folder / "tokenizer.json", spec)
    edit_json(folder / "tokenizer_config.json", **roles)
    return folder


@pytest.fixture
def padded(model_of: Make, tmp_path: Path) -> Path:
    """A [PAD] after the last row, as fine-tunes of Llama have it, and an image token."""
    folder = with_tokens(model_of("llama", vocab_size=640), tmp_path / "padded", "[PAD]", "<image>", pad_token="[PAD]")
    edit_json(folder / "tokenizer_config.json", extra_special_tokens={"image_token": "<image>"})
    edit_json(folder / "generation_config.json", pad_token_id=640)
    write_json(folder / "added_tokens.json", {"[PAD]": 640, "<image>": 641})
    write_json(folder / "special_tokens_map.json", {"pad_token": {"content": "[PAD]", **FLAGS}})
    return folder


def has_rows(folder: Path, *gone: str) -> None:
    """Every id of the tokenizer that transformers loads has a row, and so have the ids of the configs."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    rows = model.get_input_embeddings().weight.shape[0]
    assert max(tokenizer.get_vocab().values()) < rows
    assert len(tokenizer) <= rows
    assert not set(gone) & set(tokenizer.get_vocab())
    for config in (model.config, model.generation_config):
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = getattr(config, key)
            assert all(token < rows for token in (value if isinstance(value, list) else [value]) if token is not None)
    model(**tokenizer("Bread is mostly patience. [PAD] <image>", return_tensors="pt"))


def commands(padded: Path, other: Path, folder: Path) -> dict[str, list[object]]:
    (folder / "corpus.txt").write_text(makers.shipped_text("english"))
    return {
        "trim": ["trim", "--model", padded, "--corpus", folder / "corpus.txt"],
        "source": ["transplant", "--model", padded, "--tokenizer", other, "--init", "subword"],
        "target": ["transplant", "--model", other, "--tokenizer", padded, "--init", "subword"],
        "donor": ["transplant", "--model", other, "--tokenizer", padded, "--init", "omp"],
        "draft": ["draft", "--model", other, "--target", padded],
    }


@pytest.mark.parametrize("use", ["trim", "source", "target", "donor", "draft"])
def test_a_token_that_no_text_needs_is_left_out(use: str, padded: Path, model_of: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if use != "trim":  # transformers does not load such a Llama, and a trim compares outputs
        edit_json(padded / "config.json", pad_token_id=640)
    result = run(*commands(padded, model_of("gpt2", vocab_size=700), tmp_path)[use], "--out", out)
    assert "left out tokens that have no row among the 640 of their model: [PAD] (640), <image> (641)" in result.stderr
    has_rows(out, "[PAD]", "<image>")


def test_an_ensemble_with_such_a_tokenizer(padded: Path, model_of: Make, tmp_path: Path) -> None:
    models = ["--model", padded, "--model", model_of("gpt2", vocab_size=700)]
    run("ensemble", "prepare", *models, "--tokenizer", padded, "--init", "subword", "--out", tmp_path / "out")
    for member in sorted(path.parent for path in (tmp_path / "out").glob("*/config.json")):
        has_rows(member, "[PAD]", "<image>")


@pytest.mark.parametrize("need", ["eos", "template", "chat", "merges", "config"])
def test_a_token_that_text_needs_is_refused(need: str, model_of: Make, tmp_path: Path) -> None:
    folder = with_tokens(model_of("llama", vocab_size=640), tmp_path / "source", "<|end|>")
    if need == "eos":
        edit_json(folder / "tokenizer_config.json", eos_token="<|end|>")
    elif need == "config":
        edit_json(folder / "config.json", eos_token_id=[2, 640])
    elif need == "chat":
        (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}<|end|>{% endfor %}")
    elif need == "template":
        entry = {"id": "<|end|>", "ids": [640], "tokens": ["<|end|>"]}
        parts = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<|end|>", "type_id": 0}}]
        processor = {"type": "TemplateProcessing", "single": parts, "pair": parts, "special_tokens": {"<|end|>": entry}}
        edit_json(folder / "tokenizer.json", post_processor=processor)
    else:
        spec = read_json(folder / "tokenizer.json")
        spec["added_tokens"].pop()
        spec["model"]["vocab"]["▁the▁the"] = 640
        spec["model"]["merges"].append(["▁the", "▁the"])
        write_json(folder / "tokenizer.json", spec)
    with pytest.raises(InputError) as caught:
        open_source(str(folder))
    assert caught.value.code == "source-too-small"


def test_rows_past_the_tokenizer_stay_with_their_id(model_of: Make, tmp_path: Path) -> None:
    """A model that reads images marks them by an id past its tokenizer; a trim keeps that row."""
    source = copy_model(model_of("llama", vocab_size=640, rows=650), tmp_path / "source")
    edit_json(source / "config.json", image_token_id=645)
    (tmp_path / "corpus.txt").write_text(makers.shipped_text("english"))
    run("trim", "--model", source, "--corpus", tmp_path / "corpus.txt", "--out", tmp_path / "out")
    from safetensors.torch import load_file

    new = read_json(tmp_path / "out" / "config.json")["image_token_id"]
    rows = [load_file(f / "model.safetensors")["model.embed_tokens.weight"] for f in (source, tmp_path / "out")]
    assert rows[0][645].tolist() == rows[1][new].tolist()


def test_a_config_key_that_names_no_token(model_of: Make, tokenizer_of: Make, tmp_path: Path) -> None:
    """In a text model such a key is a leftover. In a model that reads images its id must stay past the rows."""
    source = copy_model(model_of("llama", vocab_size=640), tmp_path / "source")
    edit_json(source / "config.json", image_token_id=645)
    small = tokenizer_of("byte-level", vocab_size=400)
    made = ["transplant", "--model", source, "--init", "mean"]
    result = run(*made, "--tokenizer", small, "--out", tmp_path / "text")
    assert "the config names the id 645 (`image_token_id`), which is no token: it is now unset" in result.stderr
    assert read_json(tmp_path / "text" / "config.json")["image_token_id"] is None
    edit_json(source / "config.json", vision_config={"hidden_size": 8})
    result = run(*made, "--tokenizer", small, "--out", tmp_path / "seeing")
    assert read_json(tmp_path / "seeing" / "config.json")["image_token_id"] == 645
    large = tokenizer_of("byte-level", vocab_size=700)
    result = run(*made, "--tokenizer", large, "--out", tmp_path / "refused", status=1)
    assert "unmapped-id" in result.stderr
