"""Loaded objects as users have them: changed after loading, wrapped, cast, tied. Plain transformers judges."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from makers import CHAT_TEMPLATE, TEXTS
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, ProcessorMixin

import tokswap
from tokswap.checkpoint.loaded import as_loaded
from tokswap.errors import UsageError

Make = Callable[..., Path]
Pair = tuple[Any, Any]
GERMAN = str(TEXTS / "german.txt")
PROMPT = "die alte Brücke"


@pytest.fixture
def pair(model_of: Make) -> Pair:
    return _load(model_of("llama"))


@pytest.fixture
def target(model_of: Make) -> Any:
    return AutoTokenizer.from_pretrained(model_of("gpt2", vocab_size=700))


def _load(folder: Path, cls: Any = AutoModelForCausalLM) -> Pair:
    return cls.from_pretrained(folder, dtype="auto"), AutoTokenizer.from_pretrained(folder)


def _trim(pair: Any, **options: Any) -> Any:
    return tokswap.trim_vocabulary(pair, corpora=[GERMAN], **options)


def _logits(model: Any, tokenizer: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(**tokenizer(PROMPT, return_tensors="pt")).logits
    return found


def _same(pair: Any, folder: Path) -> bool:
    """Whether what AutoModel and AutoTokenizer load from a folder predicts the same."""
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype="auto"), AutoTokenizer.from_pretrained(folder)
    return torch.allclose(_logits(*loaded), _logits(*pair), atol=1e-5)


def test_the_original_does_not_follow_casts_and_flags_of_the_result(pair: Pair) -> None:
    model, _ = pair
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    changed, _ = _trim(pair)
    changed.requires_grad_(False)
    changed.half()
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    changed, _ = _trim(pair)
    changed(input_ids=torch.tensor([[5, 6]]), labels=torch.tensor([[5, 6]])).loss.backward()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_modules_of_the_body_keep_what_they_remember(pair: Pair) -> None:
    layer = pair[0].model.layers[0].mlp.up_proj
    layer.in_features, layer.out_features = 7, 8  # a packed 4-bit weight has another shape than its layer
    changed, _ = _trim(pair)
    made = changed.model.layers[0].mlp.up_proj
    assert (made.in_features, made.out_features) == (7, 8)


@pytest.mark.parametrize("tied", [True, False])
def test_ties_in_memory_count(model_of: Make, target: Any, tied: bool, tmp_path: Path) -> None:
    model, tokenizer = _load(model_of("llama" if tied else "llama-tied"))
    if tied:
        model.lm_head.weight = model.model.embed_tokens.weight
    else:
        model.config.tie_word_embeddings = False  # the weights stay tied
    result = tokswap.transplant_tokenizer((model, tokenizer), target, init="subword")
    result.load()[0].save_pretrained(tmp_path / "saved")
    result.load()[1].save_pretrained(tmp_path / "saved")
    tokswap.transplant_tokenizer((model, tokenizer), target, init="subword", out=tmp_path / "out")
    assert _same(result.load(), tmp_path / "saved")
    assert _same(result.load(), tmp_path / "out")
    assert model.config.tie_word_embeddings is False


def test_a_written_result_has_the_dtype_of_now(pair: Pair, target: Any, tmp_path: Path) -> None:
    pair[0].half()
    tokswap.transplant_tokenizer(pair, target, init="mean", out=tmp_path / "out")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").dtype == torch.float16


def test_the_generation_config_of_now_counts(pair: Pair, target: Any, tmp_path: Path) -> None:
    pair[0].generation_config.update(do_sample=True, temperature=0.3, stop_strings=["x"])
    changed, _ = tokswap.transplant_tokenizer(pair, target, init="mean")
    tokswap.transplant_tokenizer(pair, target, init="mean", out=tmp_path / "out")
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "out").generation_config
    for found in (changed.generation_config, written):
        assert (found.do_sample, found.temperature, found.stop_strings) == (True, 0.3, ["x"])
        assert (found.eos_token_id, found.bos_token_id) == (target.eos_token_id, target.bos_token_id)


def test_the_configs_of_encoder_and_decoder_follow(model_of: Make, target: Any) -> None:
    pair = _load(model_of("t5"), AutoModelForSeq2SeqLM)
    changed, tokenizer = tokswap.transplant_tokenizer(pair, target, init="mean")
    for part in (changed, changed.encoder, changed.decoder):
        assert (part.config.vocab_size, part.config.pad_token_id) == (700, tokenizer.pad_token_id)
    assert pair[0].encoder.config.vocab_size == 600


def test_settings_changed_after_loading_stay(model_of: Make, target: Any, tmp_path: Path) -> None:
    model, tokenizer = _load(model_of("llama", chat_template=CHAT_TEMPLATE))
    for one in (tokenizer, target):
        one.padding_side, one.truncation_side, one.model_max_length, one.chat_template = "left", "left", 77, None
    bos = _load(model_of("llama", vocab_size=700, adds_bos=True))  # its result begins with bos, so it is made anew
    _trim((model, tokenizer), out=tmp_path / "out")
    made = [_trim((model, tokenizer)).load()[1], tokswap.transplant_tokenizer(bos, target, init="mean").load()[1]]
    for found in (*made, AutoTokenizer.from_pretrained(tmp_path / "out")):
        assert (found.padding_side, found.truncation_side, found.model_max_length) == ("left", "left", 77)
        assert found.chat_template is None


def test_other_kinds_of_tokenizers(pair: Pair, target: Any) -> None:
    class Processor(ProcessorMixin):
        def __init__(self, tokenizer: Any) -> None:
            self.tokenizer = tokenizer

    for given in (target.backend_tokenizer, Processor(target)):
        _, made = tokswap.transplant_tokenizer(pair, given, init="mean")
        assert made(PROMPT)["input_ids"] == target(PROMPT)["input_ids"]
        assert tokswap.compare_tokenizers(given, target)["sizes"] == [700, 700]
    assert len(_trim((pair[0], Processor(pair[1]))).load()[1]) < len(pair[1])
    with pytest.raises(UsageError) as wrong:
        tokswap.compare_tokenizers(3, target)
    assert wrong.value.code == "bad-tokenizer"


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT asks transformers in an old way
def test_a_wrapped_model_is_not_written(pair: Pair, target: Any, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    settings = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(pair[0], settings)
    parametrised = _fresh(pair)
    nn.utils.parametrizations.weight_norm(parametrised.model.layers[0].mlp.up_proj)
    for wrapped in (adapted, pair[0], parametrised):  # the layers of the adapted model are now PEFT's
        with pytest.raises(UsageError) as wrong:
            tokswap.transplant_tokenizer((wrapped, pair[1]), target, init="mean", out=tmp_path / "out")
        assert wrong.value.code == "wrapped-model"
        with pytest.raises(UsageError):
            tokswap.verify_checkpoint((wrapped, pair[1]))
    assert not (tmp_path / "out").exists()
    changed, tokenizer = tokswap.transplant_tokenizer((adapted, pair[1]), target, init="mean")
    merged = copy.deepcopy(adapted).merge_and_unload()  # merges in place, and the body of the result is the same memory
    tokswap.transplant_tokenizer((merged, pair[1]), target, init="mean", out=tmp_path / "out")
    assert _same((changed, tokenizer), tmp_path / "out")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT asks transformers in an old way
def test_adapters_of_the_embeddings_are_refused_with_what_to_do(pair: Pair, target: Any) -> None:
    peft = pytest.importorskip("peft")
    for more in ({"modules_to_save": ["embed_tokens"]}, {"trainable_token_indices": [5]}):
        settings = peft.LoraConfig(r=2, target_modules=["q_proj"], **more)
        adapted = peft.get_peft_model(_fresh(pair), settings)
        with pytest.raises(tokswap.InputError, match="merge_and_unload") as wrong:
            tokswap.transplant_tokenizer((adapted, pair[1]), target, init="mean")
        assert wrong.value.code == "unknown-vocab-tensor"


def test_a_compiled_model_is_what_it_compiles(pair: Pair, target: Any, tmp_path: Path) -> None:
    compiled = torch.compile(pair[0], backend="eager")
    result = tokswap.transplant_tokenizer((compiled, pair[1]), target, init="subword").load()
    tokswap.transplant_tokenizer((compiled, pair[1]), target, init="subword", out=tmp_path / "out")
    assert type(result[0]) is type(pair[0])
    assert _same(result, tmp_path / "out")


class _WithHead(nn.Module):
    """A module around a model, as for reinforcement learning."""

    def __init__(self, model: Any, **parts: Any) -> None:
        super().__init__()
        self.pretrained_model, self.v_head, self.config = model, nn.Linear(32, 1), model.config
        vars(self).update(parts)


def test_a_module_around_a_model(pair: Pair, target: Any, tmp_path: Path) -> None:
    changed, _ = tokswap.transplant_tokenizer((_WithHead(pair[0]), pair[1]), target, init="mean")
    assert changed.pretrained_model.get_input_embeddings().weight.shape == (700, 32)
    assert changed.config.vocab_size == 700
    with pytest.raises(UsageError) as unsaved:
        tokswap.transplant_tokenizer((_WithHead(pair[0]), pair[1]), target, init="mean", out=tmp_path / "out")
    with pytest.raises(UsageError) as inside:
        tokswap.transplant_tokenizer((_WithHead(pair[0], tokenizer=pair[1]), pair[1]), target, init="mean")
    assert (unsaved.value.code, inside.value.code) == ("wrapped-model", "bad-model")


def test_a_model_without_a_name_takes_no_tokenizer_from_here(
    model_of: Make, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model_of("gpt2"))
    with pytest.raises(UsageError) as wrong:
        as_loaded(type(pair[0])(_unnamed(pair[0].config)))
    assert wrong.value.code == "missing-tokenizer"


def test_dropout_is_off_where_a_training_model_is_measured(model_of: Make) -> None:
    model, tokenizer = _load(model_of("gpt2"))
    calm = tokswap.token_losses(model, tokenizer, PROMPT).bits.sum()
    written = tokswap.generate_text((model, tokenizer), PROMPT, tokens=5).text
    model.train()
    model.transformer.h[0].eval()
    assert tokswap.token_losses(model, tokenizer, PROMPT).bits.sum() == calm
    assert tokswap.generate_text((model, tokenizer), PROMPT, tokens=5).text == written
    assert (model.training, model.transformer.h[1].training, model.transformer.h[0].training) == (True, True, False)


def _fresh(pair: Pair) -> Any:
    return AutoModelForCausalLM.from_pretrained(pair[0].name_or_path)


def _unnamed(config: Any) -> Any:
    config._name_or_path = ""
    return config


def test_an_output_may_begin_with_a_tilde(
    model_of: Make, target: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A shell does not replace it in `--out=~/result`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    result = tokswap.transplant_tokenizer(model_of("llama"), target, init="mean", out="~/result")
    assert result.path == tmp_path / "result"
    assert [path.name for path in tmp_path.iterdir()] == ["result"]
