from __future__ import annotations

from typing import Any

import pytest

from tokswap.checkpoint.facts import model_facts
from tokswap.errors import InputError

LLAMA: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 100}
LLAVA: dict[str, Any] = {
    "architectures": ["LlavaForConditionalGeneration"],
    "text_config": {"vocab_size": 100, "max_position_embeddings": 512, "tie_word_embeddings": True},
    "vision_config": {"hidden_size": 8},
}


def test_a_causal_model() -> None:
    facts = model_facts({**LLAMA, "max_position_embeddings": 64})
    assert (facts.architecture, facts.kind, facts.causal, facts.has_head) == ("LlamaForCausalLM", "causal", True, True)
    assert (facts.multimodal, facts.nested, facts.modalities) == (False, False, frozenset())
    assert (facts.positions, facts.tied, facts.remote_code) == (64, None, False)
    facts.require_causal("folder", "hint")
    facts.require_text_only("folder")


@pytest.mark.parametrize(
    ("config", "kind", "has_head"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "causal", True),
        ({"architectures": ["LlavaForConditionalGeneration"]}, "causal", True),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "encoder-decoder", True),
        ({"architectures": ["MarianMTModel"], "is_encoder_decoder": True}, "encoder-decoder", True),
        ({"architectures": ["BertForMaskedLM"]}, "other", True),
        ({"architectures": ["BertForPreTraining"]}, "other", True),
        ({"architectures": ["BertModel"]}, "other", False),
        ({"architectures": ["LlamaForSequenceClassification"]}, "other", False),
        ({"text_config": {"vocab_size": 9, "architectures": ["BertModel"]}}, "other", False),
        ({"architectures": []}, "causal", False),
        ({"model_type": "llama"}, "causal", True),
        ({"model_type": "t5", "is_encoder_decoder": True}, "encoder-decoder", True),
        ({"model_type": "bert"}, "other", False),
        ({"model_type": "of-its-own"}, "causal", False),
        ({"architectures": "LlamaForCausalLM"}, "causal", False),
        ({}, "causal", False),
    ],
)
def test_what_a_model_predicts(config: dict[str, Any], kind: str, has_head: bool) -> None:
    facts = model_facts(config)
    assert (facts.kind, facts.has_head) == (kind, has_head)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"architectures": ["A", "B"], "model_type": "llama"}, "A"),
        ({"model_type": "llama"}, "LlamaForCausalLM"),
        ({"model_type": "gpt2", "architectures": []}, "GPT2LMHeadModel"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "T5ForConditionalGeneration"),
        ({"model_type": "bert"}, "bert"),
        ({"model_type": "bert", "is_decoder": True}, "BertLMHeadModel"),
        ({"model_type": "of-its-own"}, "of-its-own"),
        ({"model_type": None}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_the_name_of_an_architecture(config: dict[str, Any], expected: str) -> None:
    assert model_facts(config).architecture == expected


def test_a_model_that_reads_images() -> None:
    facts = model_facts(LLAVA)
    assert facts.multimodal
    assert facts.nested
    assert facts.modalities == {"vision_config"}
    assert (facts.positions, facts.tied) == (512, True)
    with pytest.raises(InputError, match="LlavaForConditionalGeneration") as caught:
        facts.require_text_only("somewhere")
    assert (caught.value.code, caught.value.where) == ("not-text-only", {"model": "somewhere"})


def test_a_nested_text_model_is_part_of_a_larger_one() -> None:
    facts = model_facts({"text_config": {"vocab_size": 100}})
    assert (facts.nested, facts.modalities, facts.multimodal) == (True, frozenset(), True)


def test_a_modality_at_any_depth_counts() -> None:
    config = {"vocab_size": 100, "thinker_config": {"audio_config": {}, "vision_config": None}}
    facts = model_facts(config)
    assert (facts.nested, facts.modalities, facts.multimodal) == (False, {"audio_config"}, True)


def test_a_codebook_is_no_text_vocabulary() -> None:
    facts = model_facts({"audio_config": {"vocab_size": 9, "n_positions": 7}, "n_positions": 5})
    assert not facts.nested
    assert facts.positions == 5


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"max_position_embeddings": 64}, 64),
        ({"n_positions": 32}, 32),
        ({"max_position_embeddings": 64, "n_positions": 32}, 64),
        ({"max_position_embeddings": None, "n_positions": 32}, 32),
        ({"max_position_embeddings": True}, None),
        ({}, None),
    ],
)
def test_the_longest_input(config: dict[str, Any], expected: int | None) -> None:
    assert model_facts({**LLAMA, **config}).positions == expected


@pytest.mark.parametrize(
    ("config", "text", "expected"),
    [
        ({}, {}, None),
        ({"tie_word_embeddings": True}, {"tie_word_embeddings": False}, True),
        ({}, {"tie_word_embeddings": False}, False),
        ({"tie_word_embeddings": None}, {}, None),
        ({"tie_word_embeddings": None}, {"tie_word_embeddings": True}, True),
    ],
)
def test_ties(config: dict[str, Any], text: dict[str, Any], expected: bool | None) -> None:
    assert model_facts({**config, "text_config": {"vocab_size": 100, **text}}).tied is expected


def test_remote_code() -> None:
    assert model_facts({**LLAMA, "auto_map": {}}).remote_code


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architectures": ["BertForMaskedLM"]}, "a causal language model is needed, and this is a BertForMaskedLM"),
        (
            {"architectures": ["T5Model"], "is_encoder_decoder": True},
            "a causal language model is needed, and T5Model is an encoder-decoder",
        ),
    ],
)
def test_what_is_not_causal_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        model_facts(config).require_causal("somewhere", "leave out --heal")
    assert caught.value.code == "not-causal"
    assert caught.value.message == message
    assert caught.value.hint == "leave out --heal"
    assert caught.value.where == {"model": "somewhere"}
