"""Continuations in batches, against one prompt at a time with plain transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from makers import shipped_text

from tokswap.evaluation.continuations import continuations, greedy
from tokswap.evaluation.losses import ending_bits, token_losses
from tokswap.evaluation.models import load_model

Make = Callable[..., Path]
HEAD = "One 1\nTwo 2\nThree 3\nFour"
PROMPTS = [HEAD + tail for tail in (" 4", " and more", " 5", " letters of a word", " dogs", " of them", " 44", " 6")]
ARCHITECTURES = ["llama", "gpt2", "gemma3", "gpt-neox"]


def alone(model: Any, tokenizer: Any, prompt: str, tokens: int) -> list[int]:
    encoded = tokenizer(prompt, return_tensors="pt")
    output = model.generate(input_ids=encoded["input_ids"], max_new_tokens=tokens, do_sample=False)
    return list(output[0, encoded["input_ids"].shape[1] :].tolist())


def recurrent(tokenizer: Any) -> Any:
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    config = MambaConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, state_size=4, expand=1)
    return MambaForCausalLM(config).eval()


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "mamba"])
@pytest.mark.parametrize("padded", [False, True])
def test_batches_write_what_each_prompt_alone_gets(architecture: str, padded: bool, model_of: Make) -> None:
    folder = model_of("llama" if architecture == "mamba" else architecture, vocab_size=640)
    model, tokenizer = load_model(folder)
    if architecture == "mamba":
        model = recurrent(tokenizer)
    most = [4 + n for n in range(len(PROMPTS))]
    rows = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    assert len({*map(len, rows)}) not in (1, len(rows)), "some have the same length, some not"
    done: list[int] = []
    found = continuations(model, rows, most, padded=padded, done=done.append)
    assert found == [alone(model, tokenizer, prompt, n) for prompt, n in zip(PROMPTS, most, strict=True)]
    assert len({*map(tuple, found)}) > 3, "prompts that all go on alike would show nothing"
    assert sum(done) == len(PROMPTS)
    assert (len(done) == 1) == (padded and architecture != "mamba")


def test_what_prompts_share_is_read_once_and_what_is_decided_ends(model_of: Make) -> None:
    model, tokenizer = load_model(model_of("llama", vocab_size=640))
    rows = [tokenizer(prompt)["input_ids"] for prompt in (HEAD + " 4", HEAD + " 5", HEAD + " 6")]
    read: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda layer, given, out: read.append(given[0].numel()))
    assert len({*map(len, rows)}) == 1
    found = continuations(model, rows, [20] * 3, stop=lambda n, ids: len(ids) >= 2)
    shared = next(n for n in range(len(rows[0])) if len({row[n] for row in rows}) > 1)
    tried = [len(rows[0]) - shared, len(rows[0])]  # whether the model can go on from its cache
    assert read == [shared, *tried, 3 * (len(rows[0]) - shared), 3]
    assert [len(ids) for ids in found] == [2, 2, 2]


def test_a_model_that_forgets_what_it_has_in_its_cache() -> None:
    """Jamba, where it goes on by several tokens at once."""
    from transformers import JambaConfig, JambaForCausalLM

    torch.manual_seed(0)
    size = {"vocab_size": 600, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
    layers = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 2, "num_experts_per_tok": 1}
    kinds = {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False}
    model = JambaForCausalLM(JambaConfig(**size, **layers, **kinds, eos_token_id=2, initializer_range=0.3)).eval()
    rows = [[*range(10, 22), n, n + 1, n + 2] for n in range(30, 120, 3)]
    plain = []
    for row in rows:
        output = model.generate(torch.tensor([row]), max_new_tokens=3, do_sample=False, use_cache=False)
        plain.append(output[0, len(row) :].tolist())
    assert continuations(model, rows, [3] * len(rows)) == plain


def test_a_text_that_ends_keeps_its_end_and_nothing_after_it(model_of: Make) -> None:
    model, tokenizer = load_model(model_of("llama", vocab_size=640))
    rows = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    whole = continuations(model, rows, [12] * len(rows))
    end = whole[0][2]
    model.generation_config.eos_token_id = [end]
    found = continuations(model, rows, [12] * len(rows), padded=True)
    assert found == [ids[: ids.index(end) + 1] if end in ids else ids for ids in whole]
    assert len(found[0]) <= 3 < max(map(len, found))


def test_greedy_leaves_special_tokens_out(model_of: Make) -> None:
    model, tokenizer = load_model(model_of("llama", vocab_size=640, adds_bos=True))
    ids = alone(model, tokenizer, "The old", 6)
    model.generation_config.eos_token_id = ids[1]
    tokenizer.add_special_tokens({"eos_token": tokenizer.convert_ids_to_tokens(ids[1])})
    assert greedy(model, tokenizer, "The old", 6) == tokenizer.decode(ids[:1])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("adds_bos", [True, False])
def test_endings_have_the_loss_of_the_whole_text(architecture: str, adds_bos: bool, model_of: Make) -> None:
    model, tokenizer = load_model(model_of(architecture, vocab_size=640, adds_bos=adds_bos))
    words = shipped_text("english").split()[:24]
    texts = [(f"{a} {b}", f" {c}") for a, b, c in zip(words[::3], words[1::3], words[2::3], strict=True)]
    done: list[int] = []
    found = ending_bits(model, tokenizer, texts, done=done.append)
    for (prompt, ending), bits in zip(texts, found, strict=True):
        losses = token_losses(model, tokenizer, prompt + ending)
        assert bits == pytest.approx(losses.bits[losses.offsets[1:] > len(prompt.encode())].sum(), rel=1e-4)
    assert sum(done) == len(texts) > len(done)
