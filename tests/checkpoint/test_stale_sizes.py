"""A config may hold two sizes of the text vocabulary, of which transformers reads the inner one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import makers
import tools
from commands import run
from makers import read_json

from tokswap.checkpoint.reader import open_checkpoint

Make = Callable[..., Path]


def paligemma(tokenizer: Path, folder: Path) -> Path:
    """A model whose embeddings were resized: the size at the top of its config is still that of its class."""
    import torch
    from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

    makers.copy_model(tokenizer, folder)
    narrow = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"model_type": "gemma", "vocab_size": 600, "num_key_value_heads": 1, "head_dim": 8, **narrow}
    vision = {"model_type": "siglip_vision_model", "image_size": 32, "patch_size": 16, **narrow}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = PaliGemmaConfig(text_config=text, vision_config=vision, image_token_index=5, projection_dim=16)
        PaliGemmaForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_the_size_of_the_text_config_counts(tokenizer_of: Make, tmp_path: Path) -> None:
    from transformers import PaliGemmaForConditionalGeneration

    source = paligemma(tokenizer_of("byte-level"), tmp_path / "source")
    assert read_json(source / "config.json")["vocab_size"] == 257_152
    assert open_checkpoint(source).matrices[0].rows == 600
    target, out = tokenizer_of("byte-level", vocab_size=640), tmp_path / "out"
    run("transplant", "--model", source, "--tokenizer", target, "--init", "subword", "--out", out)
    assert read_json(out / "config.json")["text_config"]["vocab_size"] == 640
    model, info = PaliGemmaForConditionalGeneration.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    assert model.get_input_embeddings().weight.shape[0] == model.lm_head.weight.shape[0] == 640
    assert len(tools.weights(out)) == len(tools.weights(source))
