"""Models that are in memory: the result is that of the folder route, bit for bit, and nothing touches a disk."""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from makers import TEXTS, copy_model
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, AutoTokenizer

import tokswap
from tokswap.checkpoint.loaded import Loaded
from tokswap.errors import InputError, UsageError

Make = Callable[..., Path]
CLASSES = {"bert": AutoModelForMaskedLM, "t5": AutoModelForSeq2SeqLM, "bart": AutoModelForSeq2SeqLM}


def load(folder: Path, kind: str = "llama") -> tuple[Any, Any]:
    cls = CLASSES.get(kind, AutoModelForCausalLM)
    return cls.from_pretrained(folder, dtype="auto"), AutoTokenizer.from_pretrained(folder)


def config_of(model: Any) -> dict[str, Any]:
    return {key: value for key, value in model.config.to_dict().items() if key != "_name_or_path"}


def generation_of(model: Any) -> dict[str, Any]:
    """The generation config, without what transformers adds to it when it loads a model."""
    found = getattr(model, "generation_config", None)
    kept = {} if found is None else found.to_dict()
    return {key: value for key, value in kept.items() if key not in ("output_attentions", "output_hidden_states")}


def assert_equal(model: Any, tokenizer: Any, folder: Path) -> None:
    """What is in memory is what AutoModel and AutoTokenizer load from a folder."""
    other = type(model).from_pretrained(folder, dtype="auto")
    mine, theirs = model.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    assert [name for name in theirs if not torch.equal(mine[name], theirs[name])] == []
    assert config_of(model) == config_of(other)
    assert generation_of(model) == generation_of(other)
    saved = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == len(saved)
    for text in ("the old bridge", "  two  spaces", "Übung", tokenizer.eos_token or "x"):
        assert tokenizer(text)["input_ids"] == saved(text)["input_ids"]
    assert tokenizer.special_tokens_map == saved.special_tokens_map


@pytest.mark.parametrize("kind", ["llama", "llama-tied", "gpt2", "bert", "t5", "bart"])
def test_a_transplant_is_that_of_the_folder(kind: str, model_of: Make, tmp_path: Path) -> None:
    source, other = model_of(kind), model_of("gpt-neox", family="byte-level", vocab_size=700, rows=707, seed=5)
    tokenizer = AutoTokenizer.from_pretrained(other)
    report = tokswap.transplant_tokenizer(load(source, kind), tokenizer, init="subword")
    tokswap.transplant_tokenizer(source, other, init="subword", donor="none", vocab_size="tight", out=tmp_path / "out")
    assert report.path is None
    assert_equal(*report.load(), tmp_path / "out")


@pytest.mark.parametrize("tie", [True, False])
def test_matrices_can_be_tied_and_untied(tie: bool, model_of: Make, tmp_path: Path) -> None:
    source, other = model_of("llama" if tie else "llama-tied"), model_of("gpt2", vocab_size=700)
    model, tokenizer = tokswap.transplant_tokenizer(load(source), load(other), init="subword", tie=tie)
    tokswap.transplant_tokenizer(source, other, init="subword", tie=tie, out=tmp_path / "out")
    assert_equal(model, tokenizer, tmp_path / "out")
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tie


def test_a_loaded_model_is_the_donor(model_of: Make, tmp_path: Path) -> None:
    source, other = model_of("llama"), model_of("gpt2", vocab_size=700)
    model, tokenizer = tokswap.transplant_tokenizer(load(source), load(other), init="omp")
    tokswap.transplant_tokenizer(source, other, init="omp", out=tmp_path / "out")
    assert_equal(model, tokenizer, tmp_path / "out")


def test_the_tokenizer_begins_texts_with_bos_where_the_model_needs_it(model_of: Make, tmp_path: Path) -> None:
    source, other = model_of("llama", vocab_size=700, adds_bos=True), model_of("gpt2", vocab_size=900)
    report = tokswap.transplant_tokenizer(load(source), load(other), init="subword")
    model, tokenizer = report
    tokswap.transplant_tokenizer(source, other, init="subword", out=tmp_path / "out")
    assert report.plan.change.bos_added
    assert tokenizer("the bridge")["input_ids"][0] == tokenizer.bos_token_id
    assert_equal(model, tokenizer, tmp_path / "out")


def test_the_original_stays_as_it_is(model_of: Make) -> None:
    source, other = model_of("llama"), model_of("gpt2", vocab_size=700)
    model, tokenizer = load(source)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config, ids = config_of(model), tokenizer("the old bridge")["input_ids"]
    changed, _ = tokswap.transplant_tokenizer((model, tokenizer), load(other)[1], init="mean")
    assert config_of(model) == config
    assert model.get_input_embeddings().num_embeddings == len(before["model.embed_tokens.weight"])
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert tokenizer("the old bridge")["input_ids"] == ids
    layer = "model.layers.0.self_attn.q_proj.weight"
    assert changed.state_dict()[layer].data_ptr() == model.state_dict()[layer].data_ptr(), "the body is shared"


def test_the_changed_model_runs_and_can_be_saved(model_of: Make, tmp_path: Path) -> None:
    model, tokenizer = tokswap.transplant_tokenizer(
        load(model_of("llama-tied")), load(model_of("gpt2", vocab_size=700))[1], init="subword"
    )
    inputs = tokenizer("the old bridge", return_tensors="pt")
    assert model.generate(**inputs, max_new_tokens=4, do_sample=False).shape[1] > inputs["input_ids"].shape[1]
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert [check for check in tokswap.verify_checkpoint(tmp_path) if not check.ok] == []


def test_nothing_touches_a_disk(model_of: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pair, other = load(model_of("llama")), load(model_of("gpt2", vocab_size=700))[1]
    tokswap.transplant_tokenizer(pair, other, init="subword")  # what is imported is imported
    opened: list[str] = []
    real, make = builtins.open, os.mkdir

    def watched(file: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        if set(mode) & set("wax+"):
            opened.append(str(file))
        return real(file, mode, *more, **named)

    monkeypatch.setattr(builtins, "open", watched)
    monkeypatch.setattr(os, "mkdir", lambda path, *more: opened.append(str(path)) or make(path, *more))
    monkeypatch.chdir(tmp_path)
    tokswap.transplant_tokenizer(pair, other, init="subword")
    assert (opened, list(tmp_path.iterdir())) == ([], [])


def test_with_out_a_loaded_model_is_written(model_of: Make, tmp_path: Path) -> None:
    source, other = model_of("llama"), model_of("gpt2", vocab_size=700)
    report = tokswap.transplant_tokenizer(load(source), load(other), init="subword", out=tmp_path / "out")
    assert report.path == tmp_path / "out"
    tokswap.transplant_tokenizer(source, other, init="subword", out=tmp_path / "folder")
    model, tokenizer = report.load()
    assert_equal(model, tokenizer, tmp_path / "folder")
    assert [check for check in tokswap.verify_checkpoint(tmp_path / "out") if not check.ok] == []


@pytest.mark.parametrize("kind", ["llama", "bert", "t5"])
def test_a_trim_is_that_of_the_folder(kind: str, model_of: Make, tmp_path: Path) -> None:
    source, text = model_of(kind), str(TEXTS / "german.txt")
    model, tokenizer = tokswap.trim_vocabulary(load(source, kind), corpora=[text], pad_to_multiple=64)
    tokswap.trim_vocabulary(source, corpora=[text], pad_to_multiple=64, out=tmp_path / "out")
    other = type(model).from_pretrained(tmp_path / "out", dtype="auto")
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in other.state_dict().items())
    saved = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("Die alte Brücke")["input_ids"] == saved("Die alte Brücke")["input_ids"]


def test_other_functions_take_loaded_models(model_of: Make, tmp_path: Path) -> None:
    small, big = load(model_of("llama")), load(model_of("gpt2", vocab_size=700))
    draft, tokenizer = tokswap.make_draft(small, big, init="subword")
    assert draft.config.vocab_size == big[0].config.vocab_size
    assert tokenizer.get_vocab() == big[1].get_vocab()
    facts = tokswap.inspect_checkpoint(small)
    assert facts["model"] == tokswap.inspect_checkpoint(model_of("llama"))["model"] | {"bytes": facts["model"]["bytes"]}
    assert tokswap.compare_tokenizers(small, big[1])["sizes"] == [len(small[1]), len(big[1])]
    assert [check for check in tokswap.verify_checkpoint(small) if not check.ok] == []
    ensemble = tokswap.prepare_ensemble([small, big], big[1], tmp_path / "pair", init="subword")
    assert [member.name for member in ensemble.members] == ["model", "model-2"]
    assert all(check.ok for check in tokswap.check_ensemble(tmp_path / "pair"))


def test_a_model_that_knows_its_folder_needs_no_tokenizer(model_of: Make) -> None:
    model, _ = load(model_of("llama"))
    changed, _ = tokswap.transplant_tokenizer(model, load(model_of("gpt2", vocab_size=700))[1], init="mean")
    assert changed.config.vocab_size == 700
    model.config._name_or_path = model.name_or_path = "nowhere"
    with pytest.raises(UsageError) as wrong:
        tokswap.transplant_tokenizer(model, load(model_of("gpt2", vocab_size=700))[1], init="mean")
    assert wrong.value.code == "missing-tokenizer"


def test_what_is_no_model_is_refused(model_of: Make) -> None:
    tokenizer = load(model_of("gpt2", vocab_size=700))[1]
    for wrong in (3, (1, 2), tokenizer, Path):
        with pytest.raises(UsageError) as error:
            tokswap.transplant_tokenizer(wrong, tokenizer)
        assert error.value.code == "bad-model"
    model, own = load(model_of("llama"))
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(model.config)
    with pytest.raises(InputError) as missing:
        tokswap.transplant_tokenizer(Loaded(empty, own), tokenizer)
    assert missing.value.code == "not-loaded"


def test_a_bfloat16_model_keeps_its_type(model_of: Make, tmp_path: Path) -> None:
    source = copy_model(model_of("llama", dtype="bfloat16"), tmp_path / "source")
    model, _ = tokswap.transplant_tokenizer(load(source), load(model_of("gpt2", vocab_size=700)), init="subword")
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}
    assert np.isfinite(model.get_input_embeddings().weight.float().detach().numpy()).all()


def test_a_base_model_without_a_head(model_of: Make, tmp_path: Path) -> None:
    source = model_of("bert")
    model, tokenizer = AutoModel.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    changed, new = tokswap.transplant_tokenizer(
        (model, tokenizer), load(model_of("gpt2", vocab_size=700))[1], init="mean"
    )
    assert changed.get_input_embeddings().num_embeddings == len(new)


def test_generation_settings_that_the_user_has_changed(model_of: Make, tmp_path: Path) -> None:
    """transformers still says that such a generation config follows from the config of the model."""
    source = copy_model(model_of("llama"), tmp_path / "source")
    (source / "generation_config.json").unlink(missing_ok=True)
    model, tokenizer = load(source)
    model.generation_config.suppress_tokens = [5]
    model.generation_config.temperature = 0.5
    changed, _ = tokswap.trim_vocabulary((model, tokenizer), corpora=[TEXTS / "german.txt"])
    assert changed.generation_config.temperature == 0.5
    assert len(changed.generation_config.suppress_tokens) == 1
    assert not changed.generation_config._from_model_config
