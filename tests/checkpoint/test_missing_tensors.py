"""A folder that transformers would fill up with random numbers is refused where they matter, and named where not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import pytest
import tools
from commands import run
from makers import copy_model, edit_json, read_json, write_json
from transformers import AutoModelForCausalLM

from tokswap.checkpoint.missing_tensors import check_missing
from tokswap.checkpoint.reader import open_checkpoint
from tokswap.checkpoint.source import open_source
from tokswap.errors import InputError

Make = Callable[..., Path]
Tensors = dict[str, Any]


def changed(source: Path, folder: Path, rename: Callable[[str], str | None], **config: Any) -> Path:
    """Copy a model with other names of its tensors (None drops one) and other keys of its config (None drops one)."""
    copy_model(source, folder)

    def edit(tensors: Tensors) -> None:
        for name in list(tensors):
            tensor, new = tensors.pop(name), rename(name)
            tensors.update({} if new is None else {new: tensor})

    tools.rewrite(folder, edit)
    settings = {**read_json(folder / "config.json"), **config}
    write_json(folder / "config.json", {key: value for key, value in settings.items() if value is not None})
    return folder


def refused(folder: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        open_source(folder)
    assert caught.value.code == "incomplete-weights"
    return caught.value


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "base_model.model.", "pretrained_model."])
@pytest.mark.parametrize("architecture", ["llama", "llama-tied", "bert"])
def test_names_with_the_prefix_of_a_wrapper(prefix: str, architecture: str, model_of: Make, tmp_path: Path) -> None:
    folder = changed(model_of(architecture), tmp_path / "model", lambda name: prefix + name)
    error = refused(folder)
    assert prefix in error.hint
    assert "at random" in error.message


@pytest.mark.parametrize("flag", [False, None])
def test_an_lm_head_that_is_neither_stored_nor_tied(flag: bool | None, model_of: Make, tmp_path: Path) -> None:
    """Llama is not tied where its config says nothing."""
    folder = changed(model_of("llama-tied"), tmp_path / "model", lambda name: name, tie_word_embeddings=flag)
    assert "lm_head.weight" in refused(folder).message
    assert "tie_word_embeddings" in refused(folder).hint
    edit_json(folder / "config.json", tie_word_embeddings=True)
    assert open_source(folder).notes == ()


def test_a_layer_of_a_language_model(model_of: Make, tmp_path: Path) -> None:
    folder = changed(
        model_of("llama"), tmp_path / "model", lambda name: name.replace("q_proj.weight", "q_proj.base_layer.weight")
    )
    assert "q_proj.weight" in refused(folder).message


def test_a_shard_that_the_index_leaves_out(model_of: Make, tmp_path: Path) -> None:
    folder = copy_model(model_of("llama", shards=4), tmp_path / "model")
    index = folder / "model.safetensors.index.json"
    weight_map = read_json(index)["weight_map"]
    gone = weight_map["model.norm.weight"]
    edit_json(index, weight_map={name: file for name, file in weight_map.items() if file != gone})
    assert "the complete checkpoint" in refused(folder).hint


@pytest.mark.parametrize("command", ["transplant", "trim", "extend"])
def test_a_run_stops_before_it_writes(command: str, model_of: Make, tmp_path: Path) -> None:
    """Trims ended in check-failed, which calls itself a bug; the others wrote a model that is noise."""
    (tmp_path / "text.txt").write_text(makers.shipped_text("english"))
    folder = changed(model_of("llama"), tmp_path / "model", "_orig_mod.{}".format)
    target = ["--tokenizer", folder] if command == "transplant" else ["--corpus", tmp_path / "text.txt"]
    more = ["--add", "5"] if command == "extend" else []
    result = run(command, "--model", folder, *target, *more, "--out", tmp_path / "out", status=1)
    assert "[incomplete-weights]" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_head_that_nobody_has_trained_is_named(model_of: Make, tmp_path: Path) -> None:
    folder = copy_model(model_of("llama"), tmp_path / "model")
    edit_json(folder / "config.json", architectures=["LlamaForSequenceClassification"])
    (note,) = open_source(folder).notes
    assert "score.weight" in note


def test_a_buffer_has_a_value_of_its_own(model_of: Make, tmp_path: Path) -> None:
    folder = changed(model_of("bart"), tmp_path / "model", lambda name: None if name == "final_logits_bias" else name)
    assert open_source(folder).notes == ()


@pytest.mark.parametrize("architecture", makers.ARCHITECTURES)
def test_a_whole_model_has_no_note(architecture: str, model_of: Make) -> None:
    assert check_missing(open_checkpoint(model_of(architecture))) == ()


def test_a_config_that_names_no_class(model_of: Make, tmp_path: Path) -> None:
    folder = changed(model_of("llama"), tmp_path / "whole", lambda name: name, architectures=None)
    assert check_missing(open_checkpoint(folder)) == ()
    body = changed(folder, tmp_path / "body", lambda name: None if "lm_head" in name else name)
    error = refused(body)
    assert "this LlamaForCausalLM lack 1 tensor" in error.message
    assert "`architectures`" in error.hint
    encoder = changed(model_of("bert"), tmp_path / "encoder", "_orig_mod.{}".format, architectures=None)
    assert check_missing(open_checkpoint(encoder)) == ()


@pytest.mark.parametrize(
    "config",
    [{"model_type": "foobar"}, {"architectures": ["LlamaForCausalLMEagle3"]}],
)
def test_where_transformers_cannot_tell_nothing_is_said(config: dict[str, Any], model_of: Make, tmp_path: Path) -> None:
    folder = changed(model_of("llama"), tmp_path / "model", "_orig_mod.{}".format, **config)
    assert check_missing(open_checkpoint(folder)) == ()


@pytest.mark.parametrize("config", [{"hidden_act": "zzz"}, {"num_key_value_heads": 3}])
def test_a_model_that_transformers_cannot_make_has_a_note(
    config: dict[str, Any], model_of: Make, tmp_path: Path
) -> None:
    folder = changed(model_of("llama"), tmp_path / "model", lambda name: name, **config)
    with pytest.raises(Exception, match=r"zzz|size|shape|divisible|mismatch"):
        AutoModelForCausalLM.from_pretrained(folder)
    (note,) = open_source(folder).notes
    assert note.startswith("transformers cannot load this model, and so not the result: ")


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes"])
def test_of_a_quantised_model_the_vocabulary_counts(method: str, model_of: Make, tmp_path: Path) -> None:
    """Its layers have tensors that only its own loader knows."""
    config = {"quantization_config": {"quant_method": method, "bits": 4, "load_in_4bit": True}}
    packed = {"gptq": ".qweight", "awq": ".qweight", "bitsandbytes": ".weight.quant_map"}[method]

    def rename(name: str) -> str:
        return name.replace(".weight", packed) if "proj" in name else name

    whole = changed(model_of("llama"), tmp_path / "whole", rename, **config)
    assert check_missing(open_checkpoint(whole)) == ()
    no_head = changed(whole, tmp_path / "no head", lambda name: None if "lm_head" in name else name)
    assert "lm_head.weight" in refused(no_head).message
    assert "lack 1 tensor" in refused(no_head).message
    packed_head = changed(whole, tmp_path / "packed", lambda name: name.replace("lm_head.weight", "lm_head.qweight"))
    assert check_missing(open_checkpoint(packed_head)) == ()
