"""Models whose class has ids built in: a text must be read at its eos as before, or the vocabulary is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import numpy as np
import pytest
import tools
import torch
import transformers
from transformers import AutoTokenizer

import tokswap
from tokswap.checkpoint.built_in_ids import check_built_in
from tokswap.checkpoint.id_map import AlignedIds
from tokswap.checkpoint.source import open_source
from tokswap.errors import TokswapError
from tokswap.tokenizer.alignment import Alignment
from tokswap.tokenizer.vocabulary import Vocabulary

Make = Callable[..., Path]
TEXT = "the old bridge was closed"
NEW = "quokkaland"
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}


def made(name: str, tokenizer: Path, folder: Path) -> Path:
    """A tiny text model with CLIP's kind of tokenizer, whose eos is its last token, and the eos 2 in its config."""
    makers.copy_model(tokenizer, folder)
    spec, size = makers.read_json(folder / "tokenizer.json"), makers.tokenizer_size(folder)
    ends = {"<|startoftext|>": size, "<|endofsentence|>": size + 1}
    spec["model"]["vocab"] |= ends
    spec["added_tokens"] += [makers._added(token, text, special=True) for text, token in ends.items()]
    spec["post_processor"] = makers._template(["<|startoftext|>", "$A", "<|endofsentence|>"], ends)
    makers.write_json(folder / "tokenizer.json", spec)
    bos, eos = ends
    makers.edit_json(folder / "tokenizer_config.json", bos_token=bos, eos_token=eos, pad_token=eos)
    config = getattr(transformers, f"{name}Config")(
        vocab_size=size + 2, bos_token_id=0, eos_token_id=2, pad_token_id=1, **SIZES
    )
    torch.manual_seed(0)
    getattr(transformers, f"{name}Model")(config).eval().save_pretrained(folder)
    return folder


def read_at(name: str, folder: Path, text: str) -> tuple[torch.Tensor, bool]:
    """What a model makes of a text, and whether that is its state at eos."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = getattr(transformers, f"{name}Model").from_pretrained(folder).eval()
    inputs = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs)
    at = inputs["input_ids"][0].tolist().index(tokenizer.eos_token_id)
    return output.pooler_output[0], torch.equal(output.pooler_output[0], output.last_hidden_state[0, at])


def other_ids(source: Path, folder: Path) -> Path:
    makers.copy_model(source, folder)
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    tools.renumbered(folder)
    return folder


@pytest.mark.parametrize("name", ["CLIPText", "CLIPSegText", "GroupViTText"])
def test_eos_2_is_the_highest_id(name: str, tokenizer_of: Make, tmp_path: Path) -> None:
    """The results read a text at another token: the id 2 was translated, or new tokens had higher ids than eos."""
    source = made(name, tokenizer_of("byte-level", vocab_size=500), tmp_path / "source")
    before, _ = read_at(name, source, TEXT)
    (tmp_path / "terms.txt").write_text(f"{NEW}\n", encoding="utf-8")
    (tmp_path / "text.txt").write_text(TEXT * 3, encoding="utf-8")
    tokswap.transplant_tokenizer(source, other_ids(source, tmp_path / "t"), out=tmp_path / "moved", init="subword")
    tokswap.trim_vocabulary(source, corpora=[tmp_path / "text.txt"], out=tmp_path / "trimmed")
    tokswap.extend_model(source, tokens=[tmp_path / "terms.txt"], out=tmp_path / "extended", init="subword")
    for result in ("moved", "trimmed", "extended"):
        after, at_eos = read_at(name, tmp_path / result, TEXT)
        assert torch.allclose(after, before, atol=1e-5), result
        assert at_eos
        assert not [check for check in tokswap.verify_checkpoint(tmp_path / result, against=source) if not check.ok]
    assert read_at(name, tmp_path / "extended", f"the {NEW}")[1]


def test_a_class_that_always_takes_the_highest_id(tokenizer_of: Make, tmp_path: Path) -> None:
    source = made("OwlViTText", tokenizer_of("byte-level", vocab_size=500), tmp_path / "source")
    (tmp_path / "text.txt").write_text(TEXT * 3, encoding="utf-8")
    (tmp_path / "terms.txt").write_text(f"{NEW}\n", encoding="utf-8")
    tokswap.trim_vocabulary(source, corpora=[tmp_path / "text.txt"], out=tmp_path / "trimmed")
    assert torch.allclose(*(read_at("OwlViTText", tmp_path / one, TEXT)[0] for one in ("source", "trimmed")))
    target = other_ids(source, tmp_path / "target")
    jobs: tuple[Callable[[], Any], ...] = (
        lambda: tokswap.plan_transplant(source, target),
        lambda: tokswap.plan_extend(source, tokens=[tmp_path / "terms.txt"]),
    )
    for job in jobs:
        with pytest.raises(TokswapError) as refused:
            job()
        assert refused.value.code == "built-in-ids"
    config = makers.read_json(source / "config.json")
    moved = makers.copy_model(source, tmp_path / "moved")  # as an earlier release wrote it
    tools.renumbered(moved)
    makers.write_json(moved / "config.json", config)
    checks = tokswap.verify_checkpoint(moved, against=source, tokenizer=target)
    wrong = {check.name: check.detail for check in checks if not check.ok}
    assert "highest id" in wrong["config roles"], wrong


def test_loaded_models_too(tokenizer_of: Make, tmp_path: Path) -> None:
    folder = made("CLIPText", tokenizer_of("byte-level", vocab_size=500), tmp_path / "source")
    loaded = (transformers.CLIPTextModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))
    source = open_source(loaded)
    assert source.checkpoint.config["eos_token_id"] == source.tokenizer.vocabulary.roles["eos"]
    (tmp_path / "terms.txt").write_text(f"{NEW}\n", encoding="utf-8")
    model, tokenizer = tokswap.extend_model(loaded, tokens=[tmp_path / "terms.txt"], init="subword").load()
    inputs = tokenizer(f"the {NEW}", return_tensors="pt")
    with torch.no_grad():
        output = model.eval()(**inputs)
    assert torch.equal(output.pooler_output[0], output.last_hidden_state[0, -1])


def test_ids_that_modules_in_memory_remember(tokenizer_of: Make, tmp_path: Path) -> None:
    """They read a text at the old id of [SEP]."""
    folder = makers.copy_model(tokenizer_of("wordpiece", vocab_size=500), tmp_path / "source")
    roles = {f"{role}_token_id": token for role, token in makers.role_ids(folder).items()}
    config = transformers.BigBirdConfig(vocab_size=500, attention_type="original_full", **roles, **SIZES)
    loaded = (transformers.BigBirdForQuestionAnswering(config), AutoTokenizer.from_pretrained(folder))
    target = makers.copy_model(folder, tmp_path / "target")
    tools.renumbered(target)
    result = tokswap.transplant_tokenizer(loaded, AutoTokenizer.from_pretrained(target), init="subword")
    model, tokenizer = result.load()
    assert model.sep_token_id == model.config.sep_token_id == tokenizer.sep_token_id != roles["sep_token_id"]
    assert loaded[0].sep_token_id == roles["sep_token_id"]


def test_ids_among_the_weights_of_grounding_dino() -> None:
    words = tuple(f"w{n}" for n in range(1100))
    vocabulary = Vocabulary(words, tuple(word.encode() for word in words), np.zeros(1100, np.uint8), {}, {})

    def ids(source_of: np.ndarray) -> AlignedIds:
        return AlignedIds(Alignment(source_of.astype(np.int32), np.ones(1100, np.uint8)), vocabulary, vocabulary)

    same = np.arange(1100)
    check_built_in({"model_type": "grounding-dino"}, ids(same))
    with pytest.raises(TokswapError) as refused:
        check_built_in({"model_type": "grounding-dino"}, ids(same[::-1]))
    assert refused.value.code == "built-in-ids"
