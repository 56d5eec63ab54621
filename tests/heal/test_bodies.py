"""Healing of bodies that are no plain stack of linear layers: what learns is what is written, whatever transformers did.

`make compatibility` tries every architecture; these are one of each kind that was wrong once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import architectures
import healing
import pytest
import tools
import torch
from makers import copy_model, edit_json, shipped_text
from transformers import AutoModelForCausalLM, MambaConfig, OPTConfig

import tokswap
from tokswap.checkpoint.positions import longest_input
from tokswap.errors import InputError, UsageError
from tokswap.heal.adapter import reach_of

Make = Callable[..., Path]
pytestmark = pytest.mark.filterwarnings("ignore")  # what transformers says of tiny configs, and PEFT uses

KINDS = {
    "mixtral": "its files have a tensor for each expert",
    "deepseek_v3": "PEFT takes names of its linear layers for those of experts",
    "aria_text": "its experts are turned in the files",
    "mamba": "PEFT refuses a layer that the kernels read without calling it",
    "gemma3n_text": "a vocabulary matrix is part of its body",
    "bert": "the bias of its lm_head has two names",
    "prophetnet": "its embeddings have two names",
    "llama4_text": "its router is a linear layer by inheritance alone",
    "zamba": "layers share their weights",
    "xlstm": "its cache has a wrong shape",
    "rembert": "a layer lies between its hidden states and its lm_head",
    "falcon": "its linear layers have a class of their own",
    "laguna": "PEFT takes names of its files for those of experts",
}
QUICK_ROWS = {"batch_tokens": 512, "embedding_rate": 0.1, "epochs": 1}
QUICK = {**QUICK_ROWS, "rate": 0.02, "rank": 4}
REAL = (
    "falcon",
    "gemma2",
    "gpt_oss",
    "jamba",
    "mamba2",
    "mixtral",
    "mpt",
    "opt",
    "phi3",
    "prophetnet",
    "rwkv",
    "xlstm",
)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return architectures.two_tokenizers(tmp_path_factory.mktemp("tokenizers"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(((shipped_text("english") + shipped_text("german")) * 2)[:7000], encoding="utf-8")
    return path


def test_output_projections_learn_but_in_state_space_blocks() -> None:
    sizes = {"vocab_size": 32, "hidden_size": 8, "num_hidden_layers": 1}
    opt = OPTConfig(**sizes, ffn_dim=8, num_attention_heads=2, word_embed_proj_dim=8, max_position_embeddings=16)
    learns, left = (
        reach_of(AutoModelForCausalLM.from_config(config)).layers
        for config in (opt, MambaConfig(**sizes, state_size=4))
    )
    assert "model.decoder.layers.0.self_attn.out_proj" in learns
    assert left
    assert not any(name.endswith("out_proj") for name in left)


@pytest.mark.parametrize("model_type", KINDS)
def test_what_learns_is_what_is_written(model_type: str, tmp_path: Path, tokenizers: tuple[Path, Path]) -> None:
    if model_type not in architectures.listed("causal"):
        pytest.skip(f"this transformers has no {model_type}")
    outcome = healing.try_healing(model_type, tmp_path, tokenizers)
    assert (outcome.adapter, outcome.full, outcome.extend) == ("works", "works", "works")


@pytest.mark.parametrize("train", ["adapter", "full"])
def test_files_without_the_prefix_of_the_body(train: str, model_of: Make, tmp_path: Path) -> None:
    """As those of GPT-2 on the hub."""
    from safetensors.torch import save_file

    source = copy_model(model_of("gpt2", vocab_size=640), tmp_path / "source")
    plain = {name.removeprefix("transformer."): one for name, one in tools.weights(source).items()}
    assert "h.0.attn.c_attn.weight" in plain
    save_file(plain, source / "model.safetensors", metadata={"format": "pt"})
    healing.healed(source, architectures.Loaded("causal", source), tmp_path, train)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", REAL)
def test_a_whole_healing(model_type: str, text: Path, tmp_path: Path, tokenizers: tuple[Path, Path]) -> None:
    if model_type not in architectures.listed("causal"):
        pytest.skip(f"this transformers has no {model_type}")
    source, base = healing.made(model_type, tmp_path, tokenizers)
    student = tmp_path / "student"
    other = architectures._with_pad(tokenizers[1], tmp_path / "other", architectures._IDS["pad"])
    tokswap.transplant_tokenizer(str(source), str(other), init="subword", out=student)
    for train, quick in (("adapter", QUICK), ("new", QUICK_ROWS)):
        out = tmp_path / train
        report = tokswap.heal_model(student, [text], train=train, out=out, **quick)
        assert report.healing["excess_after"]["all"] < report.healing["excess_before"]["all"]
        loaded = architectures._reloaded(base, out)
        assert torch.isfinite(healing.logits(loaded.model)).all()
        for name in ("config.json", "generation_config.json"):
            if (student / name).is_file():
                assert json.loads((out / name).read_text("utf-8")) == json.loads((student / name).read_text("utf-8"))
        old, new = tools.weights(student), tools.weights(out)
        rows = {
            f"{name}" for name in old if old[name].shape[:1] == loaded.model.get_input_embeddings().weight.shape[:1]
        }
        changed = {name for name in old if not torch.equal(old[name], new[name])}
        assert changed <= {*report.tensors, *(rows if train == "new" else ())}
    tokswap.heal_model(student, [text], save="adapter", out=tmp_path / "beside", **QUICK)
    from peft import PeftModel

    beside = PeftModel.from_pretrained(architectures.Loaded("causal", student).model, tmp_path / "beside").eval()
    merged = architectures._reloaded(base, tmp_path / "adapter")
    assert healing.close(healing.logits(beside.base_model.model), healing.logits(merged.model))


def test_the_plan_says_what_an_adapter_leaves(text: Path, tmp_path: Path, tokenizers: tuple[Path, Path]) -> None:
    source, _ = healing.made("mixtral", tmp_path, tokenizers)
    plan = tokswap.plan_heal(source, [text], teacher=source, out=tmp_path / "out").plan
    assert any("of the body stays as it is (model.layers.*.mlp.experts.gate_up_proj" in note for note in plan.notes)
    terms = tmp_path / "terms.txt"
    terms.write_text("watchtower", "utf-8")
    job = tokswap.plan_extend(source, tokens=[terms], heal=[text], out=tmp_path / "out")
    assert any("of the body stays as it is" in note for note in job.plan.notes)
    full = tokswap.plan_heal(source, [text], teacher=source, train="full", out=tmp_path / "out").plan
    assert not any("of the body" in note for note in full.notes)


def test_activations_that_cannot_be_computed_twice(text: Path, tmp_path: Path, tokenizers: tuple[Path, Path]) -> None:
    """transformers says so when the teacher has read already."""
    source, _ = healing.made("openai-gpt", tmp_path, tokenizers)
    with pytest.raises(UsageError, match="OpenAIGPTLMHeadModel twice") as caught:
        tokswap.plan_heal(source, [text], teacher=source, out=tmp_path / "out", gradient_checkpointing=True)
    assert caught.value.code == "bad-setting"


def test_a_body_without_linear_layers_is_refused_in_the_plan(text: Path, model_of: Make, tmp_path: Path) -> None:
    source = copy_model(model_of("llama", vocab_size=640), tmp_path / "source")
    edit_json(source / "config.json", num_hidden_layers=0)
    terms = tmp_path / "terms.txt"
    terms.write_text("watchtower", "utf-8")
    for plan in (
        lambda **more: tokswap.plan_heal(source, [text], teacher=source, out=tmp_path / "out", **more),
        lambda train="adapter": tokswap.plan_extend(
            source, tokens=[terms], heal=[text], heal_train=train, out=tmp_path / "out"
        ),
    ):
        with pytest.raises(InputError) as caught:
            plan()
        assert caught.value.code == "no-lora-targets"
        plan(train="embeddings")


def test_positions_that_a_model_has() -> None:
    assert longest_input({"model_type": "mpt", "max_seq_len": 2048}) == 2048
    prophet = {"model_type": "prophetnet", "max_position_embeddings": 512, "pad_token_id": 0}
    assert longest_input(prophet) == 510
