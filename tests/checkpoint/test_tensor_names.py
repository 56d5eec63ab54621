"""The names by which model classes store vocabulary matrices, and those of other writers."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import tools
from shapes import CAUSAL, D, Shapes, V, matrices

# What transformers writes.


def _sizes(**changes: object) -> dict[str, object]:
    small = {"hidden_size": D, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    ids = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3}
    return {"vocab_size": V, "max_position_embeddings": 64, **small, **ids, **changes}


def _seq2seq(**changes: object) -> dict[str, object]:
    layers = {
        f"{side}_{what}": n
        for side in ("encoder", "decoder")
        for what, n in {"layers": 1, "attention_heads": 4, "ffn_dim": 48}.items()
    }
    ids = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 3}
    return {"vocab_size": V, "d_model": D, **layers, **ids, **changes}


HEAD = {"lm_head.weight": "output"}
BERT_HEAD = {
    "cls.predictions.decoder.weight": "output",
    "cls.predictions.decoder.bias": "bias",
    "cls.predictions.bias": "bias",
}
ROBERTA_HEAD = {"lm_head.decoder.weight": "output", "lm_head.decoder.bias": "bias", "lm_head.bias": "bias"}
T5 = {"vocab_size": V, "d_model": D, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4}
T5_NAMES = {"shared.weight": "input", "encoder.embed_tokens.weight": "input", "decoder.embed_tokens.weight": "input"}
BART_NAMES = {f"model.{name}": role for name, role in T5_NAMES.items()} | {"final_logits_bias": "bias"} | HEAD

Written = tuple[str, Any, dict[str, str]]
WRITTEN: dict[str, Written] = {
    name: (name, *rest)
    for name, *rest in (
        ("LlamaForCausalLM", _sizes(num_key_value_heads=2), {"model.embed_tokens.weight": "input"} | HEAD),
        ("Qwen2ForCausalLM", _sizes(num_key_value_heads=2), {"model.embed_tokens.weight": "input"} | HEAD),
        ("Qwen3ForCausalLM", _sizes(num_key_value_heads=2), {"model.embed_tokens.weight": "input"} | HEAD),
        ("MistralForCausalLM", _sizes(num_key_value_heads=2), {"model.embed_tokens.weight": "input"} | HEAD),
        ("Olmo2ForCausalLM", _sizes(), {"model.embed_tokens.weight": "input"} | HEAD),
        ("PhiForCausalLM", _sizes(), {"model.embed_tokens.weight": "input", "lm_head.bias": "bias"} | HEAD),
        (
            "OPTForCausalLM",
            _sizes(ffn_dim=48, word_embed_proj_dim=D),
            {"model.decoder.embed_tokens.weight": "input"} | HEAD,
        ),
        (
            "GPT2LMHeadModel",
            {"vocab_size": V, "n_embd": D, "n_layer": 1, "n_head": 4},
            {"transformer.wte.weight": "input"} | HEAD,
        ),
        (
            "GPTJForCausalLM",
            {"vocab_size": V, "n_embd": D, "n_layer": 1, "n_head": 4, "rotary_dim": 4},
            {"transformer.wte.weight": "input", "lm_head.bias": "bias"} | HEAD,
        ),
        (
            "OpenAIGPTLMHeadModel",
            {"vocab_size": V, "n_embd": D, "n_layer": 1, "n_head": 4},
            {"transformer.tokens_embed.weight": "input"} | HEAD,
        ),
        (
            "BloomForCausalLM",
            {"vocab_size": V, "hidden_size": D, "n_layer": 1, "n_head": 4},
            {"transformer.word_embeddings.weight": "input"} | HEAD,
        ),
        ("GPTNeoXForCausalLM", _sizes(), None),
        (
            "MambaForCausalLM",
            {"vocab_size": V, "hidden_size": D, "num_hidden_layers": 1, "state_size": 4},
            {"backbone.embeddings.weight": "input"} | HEAD,
        ),
        (
            "RwkvForCausalLM",
            {"vocab_size": V, "hidden_size": D, "num_hidden_layers": 1},
            {"rwkv.embeddings.weight": "input", "head.weight": "output"},
        ),
        ("BertForMaskedLM", _sizes(), {"bert.embeddings.word_embeddings.weight": "input"} | BERT_HEAD),
        ("BertForPreTraining", _sizes(), {"bert.embeddings.word_embeddings.weight": "input"} | BERT_HEAD),
        ("DebertaV2ForMaskedLM", _sizes(), {"deberta.embeddings.word_embeddings.weight": "input"} | BERT_HEAD),
        (
            "AlbertForMaskedLM",
            _sizes(embedding_size=16),
            {
                "albert.embeddings.word_embeddings.weight": "input",
                "predictions.decoder.weight": "output",
                "predictions.decoder.bias": "bias",
                "predictions.bias": "bias",
            },
        ),
        ("RobertaForMaskedLM", _sizes(), {"roberta.embeddings.word_embeddings.weight": "input"} | ROBERTA_HEAD),
        ("XLMRobertaForMaskedLM", _sizes(), {"roberta.embeddings.word_embeddings.weight": "input"} | ROBERTA_HEAD),
        ("MPNetForMaskedLM", _sizes(), {"mpnet.embeddings.word_embeddings.weight": "input"} | ROBERTA_HEAD),
        (
            "DistilBertForMaskedLM",
            {"vocab_size": V, "dim": D, "hidden_dim": 48, "n_layers": 1, "n_heads": 4},
            {
                "distilbert.embeddings.word_embeddings.weight": "input",
                "vocab_projector.weight": "output",
                "vocab_projector.bias": "bias",
            },
        ),
        (
            "ElectraForMaskedLM",
            _sizes(embedding_size=16),
            {
                "electra.embeddings.word_embeddings.weight": "input",
                "generator_lm_head.weight": "output",
                "generator_lm_head.bias": "bias",
            },
        ),
        (
            "ModernBertForMaskedLM",
            _sizes(cls_token_id=2, sep_token_id=3),
            {"model.embeddings.tok_embeddings.weight": "input", "decoder.weight": "output", "decoder.bias": "bias"},
        ),
        (
            "XLNetLMHeadModel",
            {"vocab_size": V, "d_model": D, "n_layer": 1, "n_head": 4, "d_inner": 48},
            {"transformer.word_embedding.weight": "input", "lm_loss.weight": "output", "lm_loss.bias": "bias"},
        ),
        (
            "XLMWithLMHeadModel",
            {"vocab_size": V, "emb_dim": D, "n_layers": 1, "n_heads": 4},
            {
                "transformer.embeddings.weight": "input",
                "pred_layer.proj.weight": "output",
                "pred_layer.proj.bias": "bias",
            },
        ),
        ("T5ForConditionalGeneration", T5, T5_NAMES | HEAD),
        ("MT5ForConditionalGeneration", T5, T5_NAMES | HEAD),
        ("T5EncoderModel", T5, {name: role for name, role in T5_NAMES.items() if "decoder" not in name}),
        (
            "T5GemmaForConditionalGeneration",
            "t5gemma",
            {
                "model.encoder.embed_tokens.weight": "input",
                "model.decoder.embed_tokens.weight": "input",
                "lm_head.out_proj.weight": "output",
            },
        ),
        ("BartForConditionalGeneration", _seq2seq(), BART_NAMES),
        ("MBartForConditionalGeneration", _seq2seq(), BART_NAMES),
        ("PegasusForConditionalGeneration", _seq2seq(), BART_NAMES),
        ("MarianMTModel", _seq2seq(), BART_NAMES),
        (
            "M2M100ForConditionalGeneration",
            _seq2seq(),
            {name: role for name, role in BART_NAMES.items() if name != "final_logits_bias"},
        ),
        (
            "WhisperForConditionalGeneration",
            _seq2seq(num_mel_bins=8),
            {"model.decoder.embed_tokens.weight": "input", "proj_out.weight": "output"},
        ),
        ("Gemma3ForCausalLM", _sizes(num_key_value_heads=2, head_dim=8), {"model.embed_tokens.weight": "input"} | HEAD),
        (
            "Gemma3nForCausalLM",
            "gemma3n",
            {"model.embed_tokens.weight": "input", "model.embed_tokens_per_layer.weight": "per-layer"} | HEAD,
        ),
        ("LlavaForConditionalGeneration", "llava", {"model.language_model.embed_tokens.weight": "input"} | HEAD),
        ("CLIPModel", "clip", {"text_model.embeddings.token_embedding.weight": "input"}),
    )
}
"""Model class -> its name, a small config, and the role of each of its vocabulary-sized tensors."""


def _special_config(name: str, hf: Any) -> Any:
    inner = _sizes(num_key_value_heads=2, head_dim=8)
    if name == "t5gemma":
        return hf.T5GemmaConfig(encoder=inner, decoder=inner, vocab_size=V)
    if name == "gemma3n":
        more = {"hidden_size_per_layer_input": 4, "num_kv_shared_layers": 0, "laurel_rank": 4, "num_hidden_layers": 5}
        return hf.Gemma3nTextConfig(**{**inner, **more}, vocab_size_per_layer_input=700)
    if name == "llava":
        vision = {
            "model_type": "clip_vision_model",
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "vocab_size": 99,
        }
        return hf.LlavaConfig(
            text_config={"model_type": "llama", **inner}, vision_config=vision, image_token_index=V - 1
        )
    assert name == "clip"
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 24}
    return hf.CLIPConfig(text_config=_sizes(), vision_config=vision)


OF_RELEASE_5 = ("LlavaForConditionalGeneration", "RwkvForCausalLM")
"""Classes that transformers 4 cannot make so small, or ties by another default."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[tools.needs_release_5] if name in OF_RELEASE_5 else []) for name in WRITTEN]
)
def test_every_name_that_transformers_writes_is_understood(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        import transformers as hf

        class_name, sizes, expected = WRITTEN[name]
        model_class = getattr(hf, class_name)
        config = _special_config(sizes, hf) if isinstance(sizes, str) else model_class.config_class(**sizes)
        config.architectures = [class_name]
        with torch.device("meta"):
            model = model_class(config)
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    if expected is None:  # GPT-NeoX, whose head has another name in some releases
        head = "embed_out.weight" if "embed_out.weight" in shapes else "lm_head.weight"
        expected = {"gpt_neox.embed_in.weight": "input", head: "output"}
    as_saved = {key: value for key, value in config.to_dict().items() if key != "tie_word_embeddings"}
    found = matrices(as_saved, shapes)
    assert {matrix.names[0]: matrix.role for matrix in found} == expected
    assert all(matrix.rows == (700 if matrix.role == "per-layer" else V) for matrix in found)
    tied = set(model._tied_weights_keys or ()) if getattr(config, "tie_word_embeddings", True) is not False else set()
    stored = {key: shape for key, shape in shapes.items() if key not in tied}
    has_head = any(word in class_name for word in ("LMHead", "ForCausal", "Masked", "Conditional", "PreTraining", "MT"))
    if not set(stored) & {key for key, role in expected.items() if role == "output"}:
        assert next(matrix.is_head for matrix in matrices(as_saved, stored) if matrix.role == "input") is has_head


# Names that older releases and other writers use, and that no class writes today.

OTHERS: dict[str, tuple[dict[str, Any], Shapes, list[tuple[str, str, bool]]]] = {
    "gpt2 without a prefix": (
        {"architectures": ["GPT2LMHeadModel"], "vocab_size": V, "n_positions": 64},
        {"wte.weight": (V, D), "wpe.weight": (64, D), "h.0.mlp.c_fc.weight": (D, 4 * D)},
        [("wte.weight", "input", True)],
    ),
    "gemma3 with images, as the hub has it": (
        {
            "architectures": ["Gemma3ForConditionalGeneration"],
            "text_config": {"vocab_size": V},
            "vision_config": {"hidden_size": 16},
        },
        {"language_model.model.embed_tokens.weight": (V, D), "vision_tower.embeddings.weight": (64, 16)},
        [("language_model.model.embed_tokens.weight", "input", True)],
    ),
    "an older vision model": (
        {
            "architectures": ["LlavaForConditionalGeneration"],
            "text_config": {"vocab_size": V},
            "tie_word_embeddings": False,
        },
        {"language_model.model.embed_tokens.weight": (V, D), "language_model.lm_head.weight": (V, D)},
        [
            ("language_model.model.embed_tokens.weight", "input", False),
            ("language_model.lm_head.weight", "output", False),
        ],
    ),
    "a nested body": (
        {
            "architectures": ["Qwen2VLForConditionalGeneration"],
            "text_config": {"vocab_size": V},
            "tie_word_embeddings": False,
        },
        {"model.language_model.embed_tokens.weight": (V, D), "lm_head.weight": (V, D)},
        [("model.language_model.embed_tokens.weight", "input", False), ("lm_head.weight", "output", False)],
    ),
    "a tied head of Cohere's speech recognition": (
        {"architectures": ["CohereAsrForConditionalGeneration"], "vocab_size": V, "tie_word_embeddings": True},
        {"transf_decoder._embedding.token_embedding.weight": (V, D), "log_softmax.mlp.layer0.bias": (V,)},
        [
            ("transf_decoder._embedding.token_embedding.weight", "input", True),
            ("log_softmax.mlp.layer0.bias", "bias", False),
        ],
    ),
    "a text head beside one of sound (Higgs)": (
        {"architectures": ["HiggsAudioV2ForConditionalGeneration"], "vocab_size": V, "tie_word_embeddings": False},
        {"model.embed_tokens.weight": (V, D), "text_lm_head.weight": (V, D), "audio_lm_head.weight": (1000, D)},
        [("model.embed_tokens.weight", "input", False), ("text_lm_head.weight", "output", False)],
    ),
    "an encoder without a head": (
        {"architectures": ["BertModel"], "vocab_size": V},
        {"embeddings.word_embeddings.weight": (V, D), "embeddings.position_embeddings.weight": (64, D)},
        [("embeddings.word_embeddings.weight", "input", False)],
    ),
    "a classifier": (
        {"architectures": ["LlamaForSequenceClassification"], "vocab_size": V},
        {"model.embed_tokens.weight": (V, D), "score.weight": (2, D)},
        [("model.embed_tokens.weight", "input", False)],
    ),
    "a head of the original llama release": (
        {**CAUSAL, "tie_word_embeddings": False},
        {"tok_embeddings.weight": (V, D), "output.weight": (V, D)},
        [("tok_embeddings.weight", "input", False), ("output.weight", "output", False)],
    ),
    "an image captioner with a bias of its head": (
        {"architectures": ["GitForCausalLM"], "vocab_size": V},
        {"git.embeddings.word_embeddings.weight": (V, D), "output.weight": (V, D), "output.bias": (V,)},
        [
            ("git.embeddings.word_embeddings.weight", "input", False),
            ("output.weight", "output", False),
            ("output.bias", "bias", False),
        ],
    ),
    "CTRL": (
        {"architectures": ["CTRLLMHeadModel"], "vocab_size": V},
        {"transformer.w.weight": (V, D), "lm_head.bias": (V,)},
        [("transformer.w.weight", "input", True), ("lm_head.bias", "bias", False)],
    ),
    "Inkling": (
        {"architectures": ["Inkling2ForCausalLM"], "vocab_size": V, "tie_word_embeddings": False},
        {"model.llm.embed.weight": (V, D), "model.llm.unembed.weight": (V, D)},
        [("model.llm.embed.weight", "input", False), ("model.llm.unembed.weight", "output", False)],
    ),
    "a second matrix for the values of attention": (
        {"architectures": ["NeoMMEForMaskedLM"], "vocab_size": V},
        {"model.word_embeddings.weight": (V, D), "model.value_embeddings.weight": (V, 16)},
        [("model.word_embeddings.weight", "input", True), ("model.value_embeddings.weight", "per-layer", False)],
    ),
    "Perceiver, with a head that is a bias": (
        {"architectures": ["PerceiverForMaskedLM"], "vocab_size": V},
        {"perceiver.input_preprocessor.embeddings.weight": (V, D), "embedding_decoder.bias": (V,)},
        [("perceiver.input_preprocessor.embeddings.weight", "input", True), ("embedding_decoder.bias", "bias", False)],
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_writers(case: str) -> None:
    config, shapes, expected = OTHERS[case]
    found = matrices(config, shapes)
    assert [(matrix.names[0], matrix.role, matrix.is_head) for matrix in found] == expected
