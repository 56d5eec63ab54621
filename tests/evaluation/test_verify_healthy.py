"""Models that no tool has touched: every check of `verify` holds, or says that it could not be made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import pytest
import tools
from makers import copy_model, edit_json, read_json, write_json

import tokswap

Make = Callable[..., Path]
ROOM = {"vocab_size": 560}


def details(folder: Path) -> dict[str, str]:
    """Verify a model, which must hold; returns check name -> detail."""
    checks = tokswap.verify_checkpoint(folder)
    assert {check.name: check.detail for check in checks if not check.ok} == {}
    return {check.name: check.detail for check in checks}


def save(model: Any, folder: Path) -> Path:
    from transformers.utils import logging

    logging.disable_progress_bar()
    model.eval().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("architecture", makers.ARCHITECTURES)
def test_every_architecture(architecture: str, model_of: Make) -> None:
    assert details(model_of(architecture, **ROOM))["model loads"]


@pytest.mark.parametrize("family", makers.FAMILIES)
def test_every_family(family: str, model_of: Make) -> None:
    assert details(model_of("llama", family=family, adds_bos=True, **ROOM))["tokenizer round trip"]


@pytest.mark.parametrize("architecture", ["bart", "gemma3", "bert", "roberta"])
def test_the_zero_row_of_a_padding_token(architecture: str, model_of: Make, tmp_path: Path) -> None:
    copy = copy_model(model_of(architecture, **ROOM), tmp_path / "model")
    pad = read_json(copy / "config.json")["pad_token_id"]
    tools.rewrite(copy, lambda tensors: tensors[tools.matrices_of(architecture)[0]][pad].zero_())
    assert "norms 0 to" in details(copy)["input rows"]


def test_padding_rows_that_are_only_read_may_be_anything(model_of: Make, tmp_path: Path) -> None:
    copy = copy_model(model_of("llama", rows=567, **ROOM), tmp_path / "model")
    tools.rewrite(copy, lambda tensors: tensors["model.embed_tokens.weight"][562:].fill_(float("nan")))
    assert details(copy)["vocabulary size"] == "560 ids, 567 rows"


@tools.needs_release_5
@pytest.mark.parametrize(("family", "name"), [("sentencepiece", "LlamaTokenizer"), ("unigram", "T5Tokenizer")])
def test_a_transplant_whose_target_has_a_class_that_ignores_tokenizer_json(
    family: str, name: str, model_of: Make, tokenizer_of: Make, tmp_path: Path
) -> None:
    """The result does what the file says; T5's class adds tokens too. Conversations are tokenized as other text is."""
    target = copy_model(tokenizer_of(family, chat_template=makers.CHAT_TEMPLATE), tmp_path / "target")
    edit_json(target / "tokenizer_config.json", tokenizer_class=name)
    source, out = model_of("llama-tied"), tmp_path / "out"
    report = tokswap.transplant_tokenizer(str(source), str(target), init="mean", out=out)
    assert any("the result does what tokenizer.json says" in note for note in report.plan.notes)
    assert {c.name: c.detail for c in tokswap.verify_checkpoint(out, against=source) if not c.ok} == {}


def test_few_positions_and_ids_that_the_class_has_by_default(tokenizer_of: Make, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = copy_model(tokenizer_of("byte-level", vocab_size=300), tmp_path / "model")
    config = GPT2Config(vocab_size=300, n_positions=64, n_embd=16, n_layer=1, n_head=2)
    save(GPT2LMHeadModel(config), folder)
    assert read_json(folder / "config.json")["bos_token_id"] == 50256
    assert "64 positions" in details(folder)["maximum length"]


def test_a_model_that_reads_sound(tokenizer_of: Make, tmp_path: Path) -> None:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    folder = copy_model(tokenizer_of("byte-level", vocab_size=400), tmp_path / "model")
    small = {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    narrow = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_mel_bins": 8}
    config = WhisperConfig(vocab_size=400, max_source_positions=32, max_target_positions=64, **small, **ids, **narrow)
    save(WhisperForConditionalGeneration(config), folder)
    assert details(folder)["model runs"] == "not tried: this model reads input_features"


@pytest.mark.parametrize("kind", ["esm", "ctrl"])
def test_classes_without_a_fast_tokenizer(kind: str, tmp_path: Path) -> None:
    import transformers as hf

    folder = tmp_path / "model"
    folder.mkdir()
    if kind == "esm":
        tokens = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWC", "<mask>"]
        (folder / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
        shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        model: Any = hf.EsmForMaskedLM(hf.EsmConfig(vocab_size=25, pad_token_id=1, mask_token_id=24, **shape))
    else:
        tokens = ["<unk>", *"abcdefgh", *(f"{letter}@@" for letter in "abcdefgh"), "ab", "ab@@"]
        write_json(folder / "vocab.json", {token: n for n, token in enumerate(tokens)})
        (folder / "merges.txt").write_text("#version: 0.2\na b</w>\na b\n", encoding="utf-8")
        config = hf.CTRLConfig(vocab_size=len(tokens), n_positions=64, n_embd=16, dff=16, n_layer=1, n_head=2)
        model = hf.CTRLLMHeadModel(config)
    write_json(
        folder / "tokenizer_config.json", {"tokenizer_class": f"{kind.upper() if kind == 'ctrl' else 'Esm'}Tokenizer"}
    )
    assert details(save(model, folder))["finite outputs"]


@pytest.mark.parametrize("head", ["SequenceClassification", "TokenClassification", "QuestionAnswering"])
def test_an_encoder_decoder_that_classifies(head: str, model_of: Make, tmp_path: Path) -> None:
    import transformers

    folder = copy_model(model_of("t5", **ROOM), tmp_path / "model")
    config = transformers.AutoConfig.from_pretrained(folder)
    model = getattr(transformers, f"T5For{head}")(config)
    assert details(save(model, folder))["finite outputs"]


def test_a_longformer_that_answers_questions(tokenizer_of: Make, tmp_path: Path) -> None:
    """It refuses a text alone: a pair has three [SEP], after which it looks for the answer."""
    from transformers import LongformerConfig, LongformerForQuestionAnswering

    folder = copy_model(tokenizer_of("byte-level", **ROOM), tmp_path / "model")
    spec = read_json(folder / "tokenizer.json")
    bos, eos, pad = (makers.role_ids(folder)["bos"], makers.role_ids(folder)["eos"], 0)
    names = {"<|im_start|>": bos, "<|im_end|>": eos}
    single = makers._template(["<|im_start|>", "$A", "<|im_end|>"], names)
    end = makers._special("<|im_end|>", 0)
    pair = [*single["single"], end, {"Sequence": {"id": "B", "type_id": 0}}, end]
    write_json(folder / "tokenizer.json", {**spec, "post_processor": {**single, "pair": pair}})
    edit_json(
        folder / "tokenizer_config.json", sep_token="<|im_end|>", cls_token="<|im_start|>", pad_token="<|endoftext|>"
    )
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ids = {"pad_token_id": pad, "bos_token_id": bos, "eos_token_id": eos, "sep_token_id": eos}
    config = LongformerConfig(vocab_size=560, attention_window=4, max_position_embeddings=260, **sizes, **ids)
    assert details(save(LongformerForQuestionAnswering(config), folder))["finite outputs"]


def test_dropout_does_not_count(model_of: Make, tmp_path: Path) -> None:
    copy = copy_model(model_of("llama", family="byte-level", **ROOM), tmp_path / "model")
    spec = read_json(copy / "tokenizer.json")
    spec["model"]["dropout"] = 0.5
    write_json(copy / "tokenizer.json", spec)
    assert details(copy)["tokenizer round trip"] == "13 of 13 texts"


def test_a_token_without_a_row_that_no_text_needs(model_of: Make, tmp_path: Path) -> None:
    copy = copy_model(model_of("gemma3", **ROOM), tmp_path / "model")
    spec = read_json(copy / "tokenizer.json")
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": 560, "content": "<image_soft_token>"})
    write_json(copy / "tokenizer.json", spec)
    assert "'<image_soft_token>'" in details(copy)["vocabulary size"]


@pytest.mark.parametrize("key", ["bos_token_id", "pad_token_id"])
def test_a_config_that_names_a_token_of_another_role(
    key: str, model_of: Make, tokenizer_of: Make, tmp_path: Path
) -> None:
    """Qwen has no bos, and its config names the pad token as one; a target that has a bos gives it to the config."""
    source, role = copy_model(model_of("qwen2"), tmp_path / "source"), key.removesuffix("_id")
    edit_json(source / "tokenizer_config.json", **{role: ...}, unk_token="<|endoftext|>")
    for name in ("config.json", "generation_config.json"):
        edit_json(source / name, **{key: 0})
    target, out = tokenizer_of("sentencepiece"), tmp_path / "out"
    tokswap.transplant_tokenizer(str(source), str(target), init="mean", out=out)
    assert read_json(out / "config.json")[key] == makers.role_ids(target)[role.removesuffix("_token")]
    assert {c.name: c.detail for c in tokswap.verify_checkpoint(out, against=source) if not c.ok} == {}


def test_a_model_without_an_end(model_of: Make, tmp_path: Path) -> None:
    copy = copy_model(model_of("gpt-neox", **ROOM), tmp_path / "model")
    for name in ("config.json", "generation_config.json"):
        edit_json(copy / name, eos_token_id=None, bos_token_id=None)
    assert details(copy)["generation stops"] == "not tried: no eos is named"


def test_a_pad_without_a_row_that_the_config_of_the_target_names(model_of: Make, tmp_path: Path) -> None:
    """Whoever adds [PAD] and does not resize the model often names it in config.json all the same."""
    target = copy_model(model_of("llama", family="byte-level", **ROOM), tmp_path / "target")
    spec = read_json(target / "tokenizer.json")
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": 560, "content": "[PAD]"})
    write_json(target / "tokenizer.json", spec)
    edit_json(target / "tokenizer_config.json", pad_token="[PAD]")
    edit_json(target / "config.json", pad_token_id=560)
    source, out = model_of("llama", **ROOM), tmp_path / "out"
    tokswap.transplant_tokenizer(str(source), str(target), init="subword", out=out)
    wrong = [check for check in tokswap.verify_checkpoint(out, against=source) if not check.ok]
    assert wrong == []


@pytest.mark.parametrize(
    ("architecture", "head"),
    [
        ("bert", "MaskedLM"),
        ("bert", "SequenceClassification"),
        ("bert", "QuestionAnswering"),
        ("bert", ""),
        ("roberta", "MaskedLM"),
        ("roberta", "TokenClassification"),
    ],
)
def test_an_encoder_whose_config_names_no_class(architecture: str, head: str, model_of: Make, tmp_path: Path) -> None:
    import transformers

    source = model_of(architecture, **ROOM)
    name = {"bert": "Bert", "roberta": "Roberta"}[architecture] + (f"For{head}" if head else "Model")
    copy = copy_model(source, tmp_path / "model")
    save(getattr(transformers, name).from_pretrained(source), copy)
    edit_json(copy / "config.json", architectures=...)
    assert details(copy)["model loads"].startswith(name)
