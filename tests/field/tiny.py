"""Tiny random models for a tokenizer: one layer, 16 wide, of the kind that the tokenizer's class belongs to."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

KINDS = {
    "Bert": "bert",
    "Cohere": "cohere",
    "GPT2": "gpt2",
    "Gemma": "gemma3_text",
    "GPTNeoX": "gpt_neox",
    "Qwen2": "qwen2",
    "T5": "t5",
}
"""How a tokenizer's class begins -> type of the model; all others get a Llama."""
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 4096,
}
ROLES = ("bos", "eos", "pad", "sep", "cls")


def make_tiny(source: Path, folder: Path, tokenizer: Any) -> Path:
    """Save a model beside a copy of a tokenizer's files.

    Args:
        source: The tokenizer's folder.
        folder: Where the model is written.
        tokenizer: The tokenizer as transformers loads it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    named = str(tokenizer.init_kwargs.get("tokenizer_class") or type(tokenizer).__name__)
    kind = next((kind for start, kind in KINDS.items() if named.startswith(start)), "llama")
    known = AutoConfig.for_model(kind)
    sizes = {key: value for key, value in SIZES.items() if hasattr(known, key)}
    roles = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ROLES}
    if kind == "t5":
        sizes |= {"d_kv": 8, "d_ff": 24, "num_decoder_layers": 1}
        roles["decoder_start_token_id"] = tokenizer.pad_token_id
    rows = -(-(1 + max(tokenizer.get_vocab().values())) // 64) * 64
    config = AutoConfig.for_model(kind, vocab_size=rows, **sizes, **roles)
    auto = {"bert": AutoModelForMaskedLM, "t5": AutoModelForSeq2SeqLM}.get(kind, AutoModelForCausalLM)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = auto.from_config(config).eval()
    shutil.copytree(source, folder)
    model.save_pretrained(folder)
    return folder
