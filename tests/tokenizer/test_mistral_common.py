"""A Mistral model whose tokenizer is that of mistral-common, a class without a backend: AutoTokenizer prefers it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import makers
import pytest
import tools

import tokswap

TEXT = "the ferry in the north [INST] there [/INST] and the other"


@pytest.fixture
def mistral(tmp_path: Path) -> Path:
    """Return a model with a tekken.json alone."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    folder = tmp_path / "mistral"
    folder.mkdir()
    size = makers.write_tekken(folder, [*(bytes([n]) for n in range(256)), b"th", b"er", b"the", b" the", b"in", b" a"])
    narrow = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = MistralConfig(
        vocab_size=size, num_key_value_heads=1, head_dim=8, bos_token_id=1, eos_token_id=2, pad_token_id=11, **narrow
    )
    torch.manual_seed(0)
    MistralForCausalLM(config).save_pretrained(folder)
    return folder


def failed(out: Path, source: Path) -> dict[str, str]:
    return {check.name: check.detail for check in tokswap.verify_checkpoint(out, against=source) if not check.ok}


@tools.needs_release_5
@pytest.mark.parametrize("with_json", [False, True])
def test_every_job(mistral: Path, with_json: bool, model_of: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("mistral_common")
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    plain = PreTrainedTokenizerFast.from_pretrained(mistral)
    if with_json:  # most repositories have both
        plain.save_pretrained(tmp_path / "plain")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (mistral / name).write_bytes((tmp_path / "plain" / name).read_bytes())
    assert not hasattr(AutoTokenizer.from_pretrained(mistral), "backend_tokenizer")
    text, words = tmp_path / "text.txt", tmp_path / "words.txt"
    text.write_text(TEXT)
    words.write_text("thinner\nanother\n")
    out = {name: tmp_path / name for name in ("trim", "extend", "onto")}
    report = tokswap.trim_vocabulary(str(mistral), corpora=[str(text)], out=out["trim"])
    assert any("finds no special tokens in a text" in note for note in report.plan.notes)
    tokswap.extend_model(str(mistral), tokens=[str(words)], corpora=[str(text)], init="subword", out=out["extend"])
    other = model_of("llama-tied")
    tokswap.transplant_tokenizer(str(other), str(mistral), init="mean", donor="none", out=out["onto"])
    for name, source in (("trim", mistral), ("extend", mistral), ("onto", other)):
        assert failed(out[name], source) == {}
        loaded = AutoTokenizer.from_pretrained(out[name])
        if name != "extend":
            pieces, own = (side.tokenize(TEXT, add_special_tokens=False) for side in (loaded, plain))
            assert pieces == own
