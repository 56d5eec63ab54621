"""The frozen model computes what transformers does, under whatever ids the tokens have; others are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import architectures
import makers
import numpy as np
import pytest

from tokswap.errors import InputError
from tokswap.hypernet.base import open_base


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tokenizer for `architectures.make_tiny`, with a mask token too."""
    folder, _ = architectures.two_tokenizers(tmp_path_factory.mktemp("tokenizers"))
    makers.edit_json(folder / "tokenizer_config.json", mask_token="<|endoftext|>")
    return folder


@pytest.mark.filterwarnings("ignore")  # what transformers says of tiny configs
@pytest.mark.parametrize("model_type", ["gemma3_text", "roberta", "xlstm"])
def test_other_ids_change_nothing(model_type: str, tokenizer: Path, tmp_path: Path) -> None:
    """Gemma scales its embeddings, RoBERTa numbers its places by the id of its pad, and xLSTM cannot keep a cache."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = architectures.make_tiny("causal", model_type, tmp_path / "model", tokenizer)
    opened, plain = open_base(folder, bf16=False, device="cpu"), AutoModelForCausalLM.from_pretrained(folder).eval()
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[9, 0, 1, 2, 3, 4, 5, 6, 7, 300]])  # the pad of RoBERTa is 2
    rows, *head = opened.source[order].split(opened.width, dim=1)
    bias = None if opened.names.bias is None else plain.get_output_embeddings().bias[order]
    with torch.no_grad():
        found = opened.logits(ids, rows, head[0] if head else None, bias)
        wanted = plain(order[ids], use_cache=False).logits[..., order]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("task", "model_type"), [("causal", "rembert"), ("masked", "perceiver"), ("masked", "esm")])
def test_models_that_compute_logits_otherwise(task: str, model_type: str, tokenizer: Path, tmp_path: Path) -> None:
    """An lm_head of another width, a model that names none, and a bias of its own: they ended in tracebacks."""
    folder = architectures.make_tiny(task, model_type, tmp_path / "model", tokenizer)
    with pytest.raises(InputError) as caught:
        open_base(folder, bf16=False, device="cpu")
    assert caught.value.code == "unsupported-base"
    assert "logits otherwise" in caught.value.message


def test_padding_rows_and_reserved_tokens_are_not_learnt(model_of: Callable[..., Path]) -> None:
    from transformers import AutoTokenizer

    folder = model_of("llama-tied", rows=640)
    opened = open_base(folder, bf16=False, device="cpu")
    names = AutoTokenizer.from_pretrained(folder).convert_ids_to_tokens(range(600))
    reserved = [n for n, name in enumerate(names) if "reserved" in name or "unused" in name]
    assert len(opened.source) == 640
    assert reserved
    assert opened.trained_ids.tolist() == [n for n in range(600) if n not in reserved]
