"""tokswap changes the weights that transformers loads, also where a folder holds more than one set, or an odd one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import pytest
import tools
from commands import run
from makers import copy_model, edit_json, read_json, write_json
from safetensors.torch import load_file, save_file
from weight_files import code_of, two_shards

from tokswap.checkpoint.reader import open_checkpoint

Make = Callable[..., Path]
INDEX = "model.safetensors.index.json"


def vocabulary(folder: Path) -> dict[str, int]:
    from transformers import AutoTokenizer

    found: dict[str, int] = AutoTokenizer.from_pretrained(folder).get_vocab()
    return found


def loaded_rows(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).get_input_embeddings().weight.detach()


def follows(source: Path, result: Path) -> None:
    """The tokens that both vocabularies have keep the rows of the model that transformers loads from the source."""
    before, after = vocabulary(source), vocabulary(result)
    same = [token for token in after if token in before and token.isascii() and token.isalpha()]
    assert len(same) > 100
    old, new = loaded_rows(source), loaded_rows(result)
    assert tools.bits(old[[before[t] for t in same]]) == tools.bits(new[[after[t] for t in same]])


def with_old_shards(source: Path, folder: Path) -> Path:
    """A folder of model.safetensors, and an older set of shards with their index."""
    copy_model(source, folder)
    first = folder / "model-00001-of-00001.safetensors"
    old = {name: tensor + 1 for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(old, first, metadata={"format": "pt"})
    write_json(folder / INDEX, {"metadata": {}, "weight_map": dict.fromkeys(old, first.name)})
    return folder


@pytest.fixture
def source(model_of: Make, tmp_path: Path) -> Path:
    return with_old_shards(model_of("llama", vocab_size=640), tmp_path / "source")


def test_one_file_comes_before_shards(source: Path, tokenizer_of: Make, tmp_path: Path) -> None:
    target = tokenizer_of("byte-level", vocab_size=700)
    result = run("transplant", "--model", source, "--tokenizer", target, "--init", "subword", "--out", tmp_path / "out")
    assert "the weights are those of model.safetensors" in result.stderr
    assert [path.name for path in (tmp_path / "out").glob("*.safetensors*")] == ["model.safetensors"]
    follows(source, tmp_path / "out")


@pytest.mark.parametrize("damage", ["missing shards", "tensors elsewhere", "no JSON", "no index"])
def test_a_stale_index_beside_one_whole_file(source: Path, damage: str, tmp_path: Path) -> None:
    if damage == "no JSON":
        (source / INDEX).write_text("{")
    elif damage == "no index":
        (source / INDEX).unlink()
    elif damage == "missing shards":
        (source / "model-00001-of-00001.safetensors").unlink()
    else:
        edit_json(source / INDEX, weight_map={"lm_head.weight": "model.safetensors", "gone": "model.safetensors"})
    checkpoint = open_checkpoint(source)
    assert [shard.path.name for shard in checkpoint.shards] == ["model.safetensors"]
    assert len(checkpoint.notes) == 1
    assert tools.bits(loaded_rows(source)) == checkpoint.raw_rows("model.embed_tokens.weight").tobytes()


def test_the_config_may_name_its_weights(source: Path, tokenizer_of: Make, tmp_path: Path) -> None:
    """`transformers_weights` comes before everything else."""
    (source / "model-00001-of-00001.safetensors").rename(source / "chosen.safetensors")
    edit_json(source / "config.json", transformers_weights="chosen.safetensors")
    target = tokenizer_of("byte-level", vocab_size=700)
    run("transplant", "--model", source, "--tokenizer", target, "--init", "subword", "--out", tmp_path / "out")
    follows(source, tmp_path / "out")


def test_the_config_may_name_an_index(tmp_path: Path) -> None:
    folder = two_shards(tmp_path / "model")
    (folder / INDEX).rename(folder / "chosen.safetensors.index.json")
    edit_json(folder / "config.json", transformers_weights="chosen.safetensors.index.json")
    checkpoint = open_checkpoint(folder)
    assert (len(checkpoint.shards), checkpoint.weights.index_name) == (2, "chosen.safetensors.index.json")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("../model.safetensors", "outside-shard"),
        ("gone.safetensors", "missing-shard"),
        ("weights.bin", "missing-weights"),
        ("model.txt", "missing-weights"),
    ],
)
def test_weights_that_a_config_cannot_name(name: str, code: str, tmp_path: Path) -> None:
    folder = two_shards(tmp_path / "model")
    edit_json(folder / "config.json", transformers_weights=name)
    assert code_of(open_checkpoint, folder) == code


@pytest.mark.parametrize("command", ["trim", "transplant"])
def test_a_tied_model_that_stores_its_head_alone(
    command: str, model_of: Make, tokenizer_of: Make, tmp_path: Path
) -> None:
    source = copy_model(model_of("llama-tied", vocab_size=640), tmp_path / "source")
    tools.rewrite(source, lambda tensors: tensors.update({"lm_head.weight": tensors.pop("model.embed_tokens.weight")}))
    out = tmp_path / "out"
    if command == "trim":
        (tmp_path / "corpus.txt").write_text(makers.shipped_text("english"))
        run("trim", "--model", source, "--corpus", tmp_path / "corpus.txt", "--out", out)
    else:
        target = tokenizer_of("sentencepiece", vocab_size=700)
        run("transplant", "--model", source, "--tokenizer", target, "--init", "subword", "--out", out)
    assert list(tools.weights(out)).count("lm_head.weight") == 1
    assert read_json(out / "config.json")["tie_word_embeddings"] is True
    follows(source, out)


def test_the_index_of_a_result_is_right_where_the_source_was_wrong(tmp_path: Path) -> None:
    folder = two_shards(tmp_path / "model")
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    edit_json(folder / INDEX, weight_map={**weight_map, "model.norm.weight": weight_map["lm_head.weight"]})
    assert open_checkpoint(folder).tensors["model.norm.weight"].file == weight_map["model.norm.weight"]
