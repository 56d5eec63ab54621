"""Hypernetworks of encoders (masked language models), and of a base model whose fine-tune gets the new tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import numpy as np
import pytest
from tools import weights

import tokswap
from tokswap.errors import InputError, UsageError
from tokswap.hypernet import load_hypernet
from tokswap.hypernet.base import open_base
from tokswap.hypernet.prepare import prepare
from tokswap.hypernet.settings import TrainSettings
from tokswap.hypernet.train import train

TEXT = makers.TEXTS / "english.txt"
SMALL: dict[str, Any] = {
    "steps": 2,
    "identity_steps": 2,
    "batch": 8,
    "length": 24,
    "identity_batch": 32,
    "vocabulary": 600,
    "negatives": 40,
    "queue": 2,
    "hidden": 16,
    "layers": 1,
}
PAD = "<|reserved_special_token_0|>"


@pytest.fixture(scope="module")
def encoders(model_of: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """BERT, and RoBERTa with a mask token and bos and eos around a text."""
    roberta = tmp_path_factory.mktemp("roberta") / "made"
    shutil.copytree(model_of("roberta"), roberta)
    around = {"cls": ["<|im_start|>", 1], "sep": ["<|im_end|>", 2], "trim_offsets": False, "add_prefix_space": False}
    makers.edit_json(roberta / "tokenizer.json", post_processor={"type": "RobertaProcessing", **around})
    makers.edit_json(roberta / "tokenizer_config.json", mask_token="<|endoftext|>", pad_token=PAD)
    makers.edit_json(roberta / "config.json", pad_token_id=3)
    return {"bert": model_of("bert"), "roberta": roberta}


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_the_result_is_a_hypernetwork_for_its_encoder(
    architecture: str, encoders: dict[str, Path], tmp_path: Path
) -> None:
    base, hypernet = encoders[architecture], tmp_path / "hypernet"
    train(str(base), [TEXT], hypernet, TrainSettings(**SMALL))
    lines = [json.loads(line) for line in (hypernet / "training" / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [line["stage"] for line in lines] == ["identity"] * 2 + ["main"] * 2
    assert lines[-1]["token_loss"] > 1
    assert load_hypernet(hypernet).config.hn_predict_bias, "both have a bias for each token"
    family = "wordpiece" if architecture == "bert" else "byte-level"
    target = makers.make_tokenizer(family, tmp_path / "target", vocab_size=900)
    if architecture == "roberta":  # it counts positions from the id of its pad
        makers.edit_json(target / "tokenizer_config.json", pad_token=PAD)
    report = tokswap.transplant_tokenizer(
        str(base), str(target), init="zett", settings={"path": str(hypernet)}, out=tmp_path / "out"
    )
    assert report.plan.coverage["missing"] > 50


def test_an_encoder_without_a_head_takes_the_hypernetwork_of_its_base(
    encoders: dict[str, Path], tmp_path: Path
) -> None:
    """As encoders of sentences are: they have one matrix, whatever the head of their base was."""
    from transformers import AutoModel

    base, bare, hypernet = encoders["bert"], tmp_path / "bare", tmp_path / "hypernet"
    train(str(base), [TEXT], hypernet, TrainSettings(**SMALL))
    shutil.copytree(base, bare)
    AutoModel.from_pretrained(base).save_pretrained(bare)
    target = makers.make_tokenizer("wordpiece", tmp_path / "target", vocab_size=900)
    rows = {}
    for name, source in (("base", base), ("bare", bare)):
        tokswap.transplant_tokenizer(
            str(source), str(target), init="zett", settings={"path": str(hypernet)}, out=tmp_path / f"{name}-out"
        )
        found = weights(tmp_path / f"{name}-out")
        rows[name] = next(value for key, value in found.items() if key.endswith("word_embeddings.weight"))
    np.testing.assert_array_equal(rows["bare"], rows["base"])


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_the_frozen_encoder_computes_what_it_did(architecture: str, encoders: dict[str, Path]) -> None:
    """With its own tokens and embeddings, and whatever stands past the end, the logits are those of transformers."""
    import torch
    from transformers import AutoModelForMaskedLM

    opened = open_base(encoders[architecture], bf16=False, device="cpu")
    plain = AutoModelForMaskedLM.from_pretrained(encoders[architecture]).eval()
    pad = opened.tokenizer.vocabulary.roles["pad"]
    ids = [opened.bos, 300, opened.mask, 77, opened.eos]
    with torch.no_grad():
        wanted = plain(torch.tensor([ids])).logits
        found = opened.logits(torch.tensor([[*ids, -1, -1]]), opened.source, None, plain.get_output_embeddings().bias)
        np.testing.assert_allclose(found[:, :5], wanted, rtol=0, atol=1e-5)
        # In a vocabulary of six, where the token at the model's pad id is any token.
        some = torch.tensor([*ids, pad])
        order = torch.tensor([5, 1, 2, 3, 4, 0])
        bias = plain.get_output_embeddings().bias[some[order]]
        found = opened.logits(torch.tensor([[5, 1, 2, 3, 4]]), opened.source[some[order]], None, bias)
    np.testing.assert_allclose(found, wanted[..., some[order]], rtol=0, atol=1e-5)


def test_what_an_encoder_predicts(encoders: dict[str, Path]) -> None:
    """About 15 % of the tokens: most are masked, a few are others or themselves. Special tokens are never predicted."""
    trainer = prepare(str(encoders["roberta"]), [TEXT], TrainSettings(**{**SMALL, "batch": 64, "queue": 1}))
    base, batch = trainer.base, trainer.batches.main(0)
    count = len(batch.pieces)
    place = {token: count + n for n, token in enumerate(base.special)}
    assert base.special == [base.tokenizer.vocabulary.roles[role] for role in ("bos", "eos", "mask")]
    assert (batch.ids[:, 0] == place[base.bos]).all()
    assert all((row[row >= 0])[-1] == place[base.eos] for row in batch.ids)
    asked = batch.labels >= 0
    assert batch.labels.max() < count
    assert batch.predicted == asked.sum()
    assert 0.1 < asked.sum() / ((batch.ids >= 0) & (batch.ids != place[base.bos])).sum() < 0.2
    assert 0.7 < (batch.ids[asked] == place[base.mask]).mean() < 0.9
    assert 0.02 < (batch.ids[asked] == batch.labels[asked]).mean() < 0.2
    assert (batch.ids[~asked] != place[base.mask]).all()


def test_encoders_that_cannot_be_trained_for(encoders: dict[str, Path], tmp_path: Path) -> None:
    """Without an lm_head there is no loss; and a text needs places for two special tokens."""
    headless = tmp_path / "headless"
    shutil.copytree(encoders["roberta"], headless)
    makers.edit_json(headless / "config.json", architectures=["RobertaModel"])
    with pytest.raises(InputError) as caught:
        train(str(headless), [TEXT], tmp_path / "out", TrainSettings(**SMALL))
    assert caught.value.code == "not-causal"
    assert "ForMaskedLM" in str(caught.value)
    with pytest.raises(UsageError, match="--length must be at most 126"):
        train(str(encoders["bert"]), [TEXT], tmp_path / "out", TrainSettings(**{**SMALL, "length": 127}))
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's own
def test_a_fine_tune_takes_the_hypernetwork_of_its_base(model_of: Callable[..., Path], tmp_path: Path) -> None:
    """A LoRA is trained and merged. The new rows are those of the base, and the layers those of the fine-tune."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base, tuned, hypernet = model_of("llama", adds_bos=True), tmp_path / "tuned", tmp_path / "hypernet"
    train(str(base), [TEXT], hypernet, TrainSettings(**SMALL))
    shutil.copytree(base, tuned)
    torch.manual_seed(0)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=4, target_modules="all-linear"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    ids = torch.randint(0, 500, (4, 32))
    losses = []
    for _ in range(5):
        loss = model(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    model.merge_and_unload().save_pretrained(tuned)

    target = makers.make_tokenizer("unigram", tmp_path / "target", vocab_size=400)
    results = {}
    for name, source in (("base", base), ("tuned", tuned)):
        tokswap.transplant_tokenizer(
            str(source), str(target), init="zett", settings={"path": str(hypernet)}, out=tmp_path / f"{name}-out"
        )
        results[name] = weights(tmp_path / f"{name}-out")
    layers = weights(tuned)
    for name, value in results["tuned"].items():
        wanted = results["base"][name] if name in ("model.embed_tokens.weight", "lm_head.weight") else layers[name]
        np.testing.assert_array_equal(value, wanted, err_msg=name)
    query = "model.layers.0.self_attn.q_proj.weight"
    assert not np.array_equal(layers[query], results["base"][query]), "the fine-tune changed the layers"
