from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tools
from makers import copy_model, edit_json

from tokswap.errors import InputError, UsageError
from tokswap.evaluation.models import load_model

Make = Callable[..., Path]


def test_load_model(model_of: Make) -> None:
    import torch

    folder = model_of("llama", vocab_size=640)
    model, _ = load_model(folder, dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    assert not model.training
    with pytest.raises(UsageError) as caught:
        load_model(folder, device="no-such-device")
    assert caught.value.code == "bad-device"


@pytest.mark.parametrize("architecture", ["bert", "roberta", "t5", "bart"])
def test_a_model_that_reads_ahead_is_refused(architecture: str, model_of: Make) -> None:
    with pytest.raises(InputError) as caught:
        load_model(model_of(architecture))
    assert caught.value.code == "not-causal"


def test_a_missing_head_is_not_filled_with_random_numbers(model_of: Make, tmp_path: Path) -> None:
    folder = tools.rewrite(
        copy_model(model_of("llama", vocab_size=640), tmp_path / "headless"),
        lambda tensors: tensors.pop("lm_head.weight"),
    )
    with pytest.raises(InputError) as caught:
        load_model(folder)
    assert caught.value.code == "incomplete-weights"
    assert "lm_head.weight" in caught.value.message


def test_what_transformers_cannot_load(model_of: Make, tmp_path: Path) -> None:
    folder = copy_model(model_of("llama", vocab_size=640), tmp_path / "weightless")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError) as caught:
        load_model(folder)
    assert caught.value.code == "cannot-load"
    (folder / "config.json").unlink()
    with pytest.raises(InputError) as caught:
        load_model(folder)
    assert caught.value.code == "missing-config"


def test_a_config_that_asks_for_tuples(model_of: Make, tmp_path: Path) -> None:
    """`return_dict: false` is for code of the user's own: what we load gives outputs with names."""
    folder = copy_model(model_of("llama"), tmp_path / "model")
    edit_json(folder / "config.json", return_dict=False)
    model, tokenizer = load_model(folder)
    rows = model(**tokenizer("three words here", return_tensors="pt")).logits
    assert tools.bits(rows) == tools.bits(
        load_model(model_of("llama"))[0](**tokenizer("three words here", return_tensors="pt")).logits
    )


def test_remote_code_does_not_run_unasked(model_of: Make, tmp_path: Path) -> None:
    folder = copy_model(model_of("llama", vocab_size=640), tmp_path / "remote")
    edit_json(folder / "config.json", auto_map={"AutoModelForCausalLM": "modelling.Own"})
    with pytest.raises(InputError) as caught:
        load_model(folder)
    assert caught.value.code == "remote-code"
