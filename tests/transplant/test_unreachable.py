"""Rows of ids that text is never tokenized into. Read with safetensors, tokenizers and transformers alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import numpy as np
import pytest
import tools

import tokswap

Make = Callable[..., Path]
PROMPT = "A bridge is closed. It is 5 o'clock, and 9 people wait."


def library(folder: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def id_given(folder: Path, text: str) -> int:
    """The id of a text after another one."""
    (_, token) = library(folder).encode(f"x{text}", add_special_tokens=False).ids
    return int(token)


def with_added(folder: Path, copy: Path, *contents: str) -> Path:
    """Copy a folder, and add plain tokens to its tokenizer: past its last one, unless its model has them."""
    folder, size = makers.copy_model(folder, copy), makers.tokenizer_size(folder)
    spec = makers.read_json(folder / "tokenizer.json")
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "special"), False)
    spec["added_tokens"] += [
        {"id": spec["model"]["vocab"].get(content, size + n), "content": content, "normalized": True, **flags}
        for n, content in enumerate(contents)
    ]
    makers.write_json(folder / "tokenizer.json", spec)
    return folder


def byte_twins(folder: Path) -> dict[int, int]:
    """Id of each byte token whose byte is a piece too -> the id of that piece."""
    vocab = library(folder).get_vocab()
    pieces = {byte: vocab.get(chr(byte).replace(" ", "▁")) for byte in range(128)}
    return {vocab[f"<0x{byte:02X}>"]: piece for byte, piece in pieces.items() if piece is not None}


@pytest.mark.parametrize("tie", [None, False])
@pytest.mark.parametrize("method", ["subword", "omp"])
def test_a_transplanted_model_never_writes_a_byte_that_has_a_piece(
    model_of: Make, tmp_path: Path, method: str, tie: bool | None
) -> None:
    """Equal rows give equal logits, and greedy decoding takes the lower id: the byte token."""
    source, donor = model_of("llama-tied", vocab_size=640), model_of("llama")
    options: dict[str, Any] = {} if tie is None else {"tie": tie}
    report = tokswap.transplant_tokenizer(
        str(source), str(donor), out=tmp_path / "out", init=method, donor=str(donor), **options
    )
    twins = byte_twins(tmp_path / "out")
    assert len(twins) > 40
    tensors, old = tools.weights(tmp_path / "out"), tools.weights(source)
    for name in tools.matrices_of("llama") if tie is False else tools.matrices_of("llama-tied"):
        for byte, piece in twins.items():
            assert tools.bits(tensors[name][byte]) != tools.bits(tensors[name][piece])
        rows = {tools.bits(row) for row in old["model.embed_tokens.weight"]}
        assert not {tools.bits(tensors[name][byte]) for byte in twins} & rows
    model, _ = tools.load(tmp_path / "out", "llama")
    scores = tools.logits(model, tools.encode(tmp_path / "out", PROMPT))
    assert {*scores.topk(20, dim=-1).indices.flatten().tolist()} & {*twins.values()}
    assert not {*scores.topk(20, dim=-1).indices.flatten().tolist()} & {*twins}
    assert report.plan.coverage["unreachable"] == len(twins)


def test_a_byte_token_without_a_piece_is_matched_by_its_byte(
    model_of: Make, tokenizer_of: Make, tmp_path: Path
) -> None:
    source, target = model_of("llama-tied"), tokenizer_of("sentencepiece")
    tokswap.transplant_tokenizer(str(source), str(target), out=tmp_path / "out", init="subword")
    new, old = tools.weights(tmp_path / "out"), tools.weights(source)
    line, there = library(target).token_to_id("<0x0A>"), id_given(source, "\n")
    assert library(target).token_to_id("\n") is None
    name = "model.embed_tokens.weight"
    assert tools.bits(new[name][line]) == tools.bits(old[name][there])


def test_a_row_comes_from_the_id_that_the_source_reads(model_of: Make, tokenizer_of: Make, tmp_path: Path) -> None:
    """GPT-NeoX reads an added token for two spaces, beside the `ĠĠ` of its model."""
    source = with_added(model_of("llama-tied", rows=640), tmp_path / "source", "  ")
    target = tokenizer_of("byte-level", vocab_size=560)
    tokswap.transplant_tokenizer(str(source), str(target), out=tmp_path / "out", init="subword")
    new, old = tools.weights(tmp_path / "out"), tools.weights(source)
    name = "model.embed_tokens.weight"
    given, here = id_given(source, "  "), id_given(target, "  ")
    assert given >= 600
    assert tools.bits(new[name][here]) == tools.bits(old[name][given])


def test_a_token_that_the_source_never_reads_is_computed(model_of: Make, tokenizer_of: Make, tmp_path: Path) -> None:
    """DeepSeek adds letters: the words of its model that contain one have rows that nothing has trained."""
    source = with_added(model_of("llama-tied", rows=640), tmp_path / "source", "er")
    target = tokenizer_of("byte-level", vocab_size=590)
    tokswap.transplant_tokenizer(str(source), str(target), out=tmp_path / "out", init="subword")
    new, old = tools.weights(tmp_path / "out"), tools.weights(source)
    name, vocab = "model.embed_tokens.weight", library(target).get_vocab()
    longer = [token for text, token in vocab.items() if "er" in text and text.strip("Ġ").isalpha() and text != "er"]
    assert longer
    for token in longer:
        assert tools.bits(new[name][token]) not in {tools.bits(row) for row in old[name]}


def test_a_model_token_that_the_target_hides_is_never_predicted(
    model_of: Make, tokenizer_of: Make, tmp_path: Path
) -> None:
    source = model_of("llama-tied", vocab_size=640)
    target = with_added(tokenizer_of("byte-level"), tmp_path / "target", "  ", " the")
    report = tokswap.transplant_tokenizer(str(source), str(target), out=tmp_path / "out", init="subword")
    vocab = library(target).get_vocab()
    hidden = [token for text, token in vocab.items() if "ĠĠ" in text or "Ġthe" in text]
    new = tools.weights(tmp_path / "out")["model.embed_tokens.weight"]
    assert len({tools.bits(new[token]) for token in hidden}) == 1
    model, _ = tools.load(tmp_path / "out", "llama")
    scores = tools.logits(model, tools.encode(tmp_path / "out", PROMPT))
    assert not np.intersect1d(scores.topk(20, dim=-1).indices.unique().numpy(), hidden).size
    assert id_given(tmp_path / "out", "  ") >= 600
    assert report.plan.coverage["unreachable"] == len(hidden) > 2
