from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import tools

from tokswap.checkpoint.matrices import VocabMatrix, find_matrices, head_name, text_config, tie_flag
from tokswap.errors import InputError

V, D = 771, 32
Shapes = dict[str, tuple[int, ...]]
CAUSAL = {"architectures": ["LlamaForCausalLM"], "vocab_size": V, "hidden_size": D}


def tables(
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    same: Callable[[str, str], bool] = lambda first, second: False,
    dtype: str = "F32",
    dtypes: Mapping[str, str] | None = None,
) -> tuple[VocabMatrix, ...]:
    tensors = {name: ((dtypes or {}).get(name, dtype), shape) for name, shape in shapes.items()}
    return find_matrices("folder", config, tensors, same)


def error(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], **options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        tables(config, shapes, **options)
    return caught.value


def always(first: str, second: str) -> bool:
    return True


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
"""Classes that transformers 4 cannot make so small, or with another default for ties."""


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
    found = tables(as_saved, shapes)
    assert {table.names[0]: table.role for table in found} == expected
    assert all(table.rows == (700 if table.role == "per-layer" else V) for table in found)
    tied = set(model._tied_weights_keys or ()) if getattr(config, "tie_word_embeddings", True) is not False else set()
    stored = {key: shape for key, shape in shapes.items() if key not in tied}
    has_head = any(word in class_name for word in ("LMHead", "ForCausal", "Masked", "Conditional", "PreTraining", "MT"))
    if not set(stored) & {key for key, role in expected.items() if role == "output"}:
        assert next(table.is_head for table in tables(as_saved, stored) if table.role == "input") is has_head


# Names of older releases and other writers, on which no class can be asked today.

OTHERS: dict[str, tuple[dict[str, Any], Shapes, list[tuple[str, str, bool]]]] = {
    "gpt2 without a prefix": (
        {"architectures": ["GPT2LMHeadModel"], "vocab_size": V, "n_positions": 64},
        {"wte.weight": (V, D), "wpe.weight": (64, D), "h.0.mlp.c_fc.weight": (D, 4 * D)},
        [("wte.weight", "input", True)],
    ),
    "gemma3 with pictures, as the hub has it": (
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
    "a picture captioner with a head's bias": (
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
    "a second table for the values of attention": (
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
    found = tables(config, shapes)
    assert [(table.names[0], table.role, table.is_head) for table in found] == expected


def test_a_table_of_the_experts_of_each_token() -> None:
    """DeepSeek-V4 sends tokens to experts by their ids in its first layers."""
    name = "model.layers.0.ffn.gate.tid2eid"
    embedding, lookup = tables(CAUSAL, {**BODY, name: (V, 6)}, dtypes={name: "I64"})
    assert embedding.role == "input"
    assert (lookup.role, lookup.names, lookup.rows, lookup.row_bytes) == ("lookup", (name,), V, 48)


def test_shapes_of_a_table() -> None:
    shapes = {"model.shared.weight": (V, D), "final_logits_bias": (1, V), "lm_head.bias": (V,)}
    found = {table.names[0]: table for table in tables(CAUSAL, shapes)}
    assert {name: (table.axis, table.rows, table.width) for name, table in found.items()} == {
        "model.shared.weight": (0, V, D),
        "final_logits_bias": (1, V, 1),
        "lm_head.bias": (0, V, 1),
    }


# Ties.

PAIR = {"lm_head.weight": (V, D), "model.embed_tokens.weight": (V, D)}
TIES: dict[str, tuple[dict[str, Any], bool, list[tuple[tuple[str, ...], bool]]]] = {
    "equal bytes and no flag": ({}, True, [(("model.embed_tokens.weight", "lm_head.weight"), True)]),
    "equal bytes and tied": (
        {"tie_word_embeddings": True},
        True,
        [(("model.embed_tokens.weight", "lm_head.weight"), True)],
    ),
    "equal bytes and untied": (
        {"tie_word_embeddings": False},
        True,
        [(("model.embed_tokens.weight",), False), (("lm_head.weight",), False)],
    ),
    "other bytes and tied": (
        {"tie_word_embeddings": True},
        False,
        [(("model.embed_tokens.weight",), False), (("lm_head.weight",), False)],
    ),
    "untied in the text config": (
        {"text_config": {"vocab_size": V, "tie_word_embeddings": False}},
        True,
        [(("model.embed_tokens.weight",), False), (("lm_head.weight",), False)],
    ),
}


@pytest.mark.parametrize("case", TIES)
def test_ties_of_two_stored_tensors(case: str) -> None:
    config, equal, expected = TIES[case]
    outer = {key: value for key, value in CAUSAL.items() if not (key == "vocab_size" and "text_config" in config)}
    found = tables({**outer, **config}, PAIR, same=lambda first, second: equal)
    assert [(table.names, table.is_head) for table in found] == expected


@pytest.mark.parametrize(("flag", "expected"), [(None, True), (True, True), (False, False)])
def test_a_head_that_is_not_stored_is_the_input_table(flag: bool | None, expected: bool) -> None:
    config = CAUSAL if flag is None else {**CAUSAL, "tie_word_embeddings": flag}
    (table,) = tables(config, {"model.embed_tokens.weight": (V, D)})
    assert table.is_head is expected
    assert table.role == "input"


def test_a_tie_takes_the_same_dtype_and_shape() -> None:
    found = tables(CAUSAL, PAIR, same=always, dtypes={"lm_head.weight": "BF16"})
    assert [table.names for table in found] == [("model.embed_tokens.weight",), ("lm_head.weight",)]


def test_copies_of_one_table_are_one_table_even_where_the_head_is_apart() -> None:
    shapes = {"encoder.embed_tokens.weight": (V, D), "lm_head.weight": (V, D), "shared.weight": (V, D)}
    found = tables({**CAUSAL, "tie_word_embeddings": False}, shapes, same=always)
    assert [table.names for table in found] == [
        ("encoder.embed_tokens.weight", "shared.weight"),
        ("lm_head.weight",),
    ]


def test_the_two_names_of_a_bert_bias_are_one_table() -> None:
    shapes = {
        "bert.embeddings.word_embeddings.weight": (V, D),
        "cls.predictions.decoder.bias": (V,),
        "cls.predictions.bias": (V,),
    }
    config = {"architectures": ["BertForMaskedLM"], "vocab_size": V}
    assert [t.names for t in tables(config, shapes, same=always) if t.role == "bias"] == [
        ("cls.predictions.decoder.bias", "cls.predictions.bias")
    ]
    assert len([t for t in tables(config, shapes) if t.role == "bias"]) == 2


@pytest.mark.parametrize(
    ("config", "text", "expected"),
    [
        ({}, {}, None),
        ({"tie_word_embeddings": True}, {"tie_word_embeddings": False}, True),
        ({}, {"tie_word_embeddings": False}, False),
        ({"tie_word_embeddings": None}, {}, None),
    ],
)
def test_tie_flag(config: dict[str, Any], text: dict[str, Any], expected: bool | None) -> None:
    assert tie_flag(config, text) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.embed_tokens.weight", "lm_head.weight"),
        ("transformer.wte.weight", "lm_head.weight"),
        ("wte.weight", "lm_head.weight"),
        ("model.language_model.embed_tokens.weight", "lm_head.weight"),
        ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight"),
        ("gpt_neox.embed_in.weight", "embed_out.weight"),
        ("shared.weight", None),
        ("model.decoder.embed_tokens.weight", None),
        ("bert.embeddings.word_embeddings.weight", None),
    ],
)
def test_the_name_of_a_separate_head(name: str, expected: str | None) -> None:
    assert head_name(VocabMatrix((name,), "input", "F32", (V, D))) == expected


# Refusals.

BODY = {"model.embed_tokens.weight": (V, D)}
REFUSED: dict[str, tuple[str, dict[str, Any], Shapes, dict[str, str]]] = {
    "an unknown tensor with a row a token": (
        "unknown-vocab-tensor",
        CAUSAL,
        {**BODY, "model.token_scale": (V,)},
        {},
    ),
    "an unknown tensor with a column a token": (
        "unknown-vocab-tensor",
        CAUSAL,
        {**BODY, "cls.predictions.dense.weight": (D, V)},
        {},
    ),
    "a routing table by token id that is no list of integers": (
        "quantised-table",
        CAUSAL,
        {**BODY, "model.layers.0.mlp.gate.tid2eid": (V, 6)},
        {"model.layers.0.mlp.gate.tid2eid": "F32"},
    ),
    "rows that are read and never predicted (Llama 3.2 with pictures)": (
        "vocab-size-mismatch",
        CAUSAL,
        {"model.embed_tokens.weight": (V + 8, D), "lm_head.weight": (V, D)},
        {},
    ),
    "a translator between two languages (FSMT)": (
        "two-vocabularies",
        {"src_vocab_size": V, "tgt_vocab_size": V},
        {"model.encoder.embed_tokens.weight": (V, D), "model.decoder.embed_tokens.weight": (V, D)},
        {},
    ),
    "a transposed head": ("unknown-vocab-tensor", CAUSAL, {**BODY, "logits.kernel": (D, V)}, {}),
    "eight bits": ("quantised-table", CAUSAL, BODY, {"model.embed_tokens.weight": "I8"}),
    "eight-bit floats": ("quantised-table", CAUSAL, BODY, {"model.embed_tokens.weight": "F8_E4M3"}),
    "packed words with their scales (MLX)": (
        "quantised-table",
        CAUSAL,
        {"model.embed_tokens.scales": (V, 2), "model.embed_tokens.biases": (V, 2), "model.embed_tokens.weight": (V, 4)},
        {"model.embed_tokens.weight": "U32"},
    ),
    "packed words of another shape (GPTQ)": (
        "quantised-table",
        CAUSAL,
        {"model.embed_tokens.qweight": (V // 8, D), "model.embed_tokens.qzeros": (1, 4)},
        {"model.embed_tokens.qweight": "I32", "model.embed_tokens.qzeros": "I32"},
    ),
    "packed bytes in one column (bitsandbytes)": (
        "quantised-table",
        CAUSAL,
        {"model.embed_tokens.weight": (V * D // 2, 1)},
        {"model.embed_tokens.weight": "U8"},
    ),
    "a quantised head": (
        "quantised-table",
        CAUSAL,
        {**BODY, "lm_head.qweight": (D // 8, V)},
        {"lm_head.qweight": "I32"},
    ),
    "a quantised head of another shape": (
        "quantised-table",
        CAUSAL,
        {**BODY, "lm_head.weight": (V * D // 2, 1)},
        {"lm_head.weight": "U8"},
    ),
    "a row scale beside the table": (
        "quantised-table",
        CAUSAL,
        {"lm_head.weight_scale": (V, 1), **BODY, "lm_head.weight": (V, D)},
        {"lm_head.weight": "F8_E4M3"},
    ),
    "fewer rows than the config says": ("vocab-size-mismatch", CAUSAL, {"model.embed_tokens.weight": (V - 1, D)}, {}),
    "a head with more rows": ("vocab-size-mismatch", CAUSAL, {**BODY, "lm_head.weight": (V + 5, D)}, {}),
    "a GPT-NeoX head with more rows": (
        "vocab-size-mismatch",
        CAUSAL,
        {"gpt_neox.embed_in.weight": (V, D), "embed_out.weight": (V + 5, D)},
        {},
    ),
    "no embedding": ("no-embedding", CAUSAL, {"lm_head.weight": (V, D)}, {}),
    "nothing at all": ("no-embedding", CAUSAL, {}, {}),
    "no vocabulary": ("bad-config", {"hidden_size": D}, BODY, {}),
    "a vocabulary of no tokens": ("bad-config", {"vocab_size": 0}, {"embed_tokens.weight": (0, D)}, {}),
    "a vocabulary size of text": ("bad-config", {"vocab_size": str(V)}, BODY, {}),
    "a vocabulary size that is a truth": ("bad-config", {"vocab_size": True}, BODY, {}),
    "a vocabulary of pictures only": ("bad-config", {"vision_config": {"vocab_size": V}}, BODY, {}),
    "an encoder and a decoder that differ": (
        "two-vocabularies",
        {"encoder": {"vocab_size": V}, "decoder": {"vocab_size": 50}},
        BODY,
        {},
    ),
    "tables that a translator does not share": (
        "two-vocabularies",
        {"vocab_size": V, "decoder_vocab_size": 700, "share_encoder_decoder_embeddings": False},
        {"model.encoder.embed_tokens.weight": (V, D), "model.decoder.embed_tokens.weight": (700, D)},
        {},
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_understood_is_refused(case: str) -> None:
    code, config, shapes, dtypes = REFUSED[case]
    refused = error(config, shapes, dtypes=dtypes)
    assert refused.code == code
    assert refused.where["folder"] == "folder"


def test_refusals_name_the_tensor() -> None:
    assert "model.token_scale" in error(CAUSAL, {**BODY, "model.token_scale": (V,)}).message
    assert "lm_head.weight has 776 rows" in error(CAUSAL, {**BODY, "lm_head.weight": (776, D)}).message


# A side of the vocabulary's size that is another number of the model.


@pytest.mark.parametrize("key", ["hidden_size", "intermediate_size", "max_position_embeddings", "n_positions"])
@pytest.mark.parametrize("where", ["outer", "text_config", "vision_config"])
def test_a_number_of_the_config_explains_a_side(key: str, where: str) -> None:
    config: dict[str, Any] = {**CAUSAL, "hidden_size": D}
    config = {**config, key: V} if where == "outer" else {**config, where: {key: V}}
    shapes = {**BODY, "model.layers.0.mlp.up_proj.weight": (V, D), "model.layers.0.mlp.down_proj.weight": (D, V)}
    assert [table.names for table in tables(config, shapes)] == [("model.embed_tokens.weight",)]


@pytest.mark.parametrize("key", ["image_token_id", "image_token_index", "type_vocab_size", "pad_token_id"])
def test_an_id_or_a_vocabulary_explains_nothing(key: str) -> None:
    assert error({**CAUSAL, key: V}, {**BODY, "model.token_scale": (V,)}).code == "unknown-vocab-tensor"


def test_a_model_as_wide_as_its_vocabulary() -> None:
    """Every tensor of it has a vocabulary-sized side; only the names tell which are tables."""
    size = 64
    shapes = {
        "bert.embeddings.word_embeddings.weight": (size, size),
        "bert.embeddings.position_embeddings.weight": (size, size),
        "bert.embeddings.token_type_embeddings.weight": (2, size),
        "bert.embeddings.LayerNorm.weight": (size,),
        "bert.encoder.layer.0.attention.self.query.weight": (size, size),
        "bert.encoder.layer.0.attention.output.dense.weight": (size, size),
        "bert.encoder.layer.0.attention.output.dense.bias": (size,),
        "bert.encoder.layer.0.output.dense.weight": (size, 4 * size),
        "bert.pooler.dense.weight": (size, size),
        "cls.predictions.transform.dense.weight": (size, size),
        "cls.predictions.transform.dense.bias": (size,),
        "cls.predictions.transform.LayerNorm.bias": (size,),
        "cls.predictions.bias": (size,),
    }
    config = {"architectures": ["BertForMaskedLM"], "vocab_size": size, "hidden_size": size}
    found = {name for table in tables(config, shapes) for name in table.names}
    assert found == {"bert.embeddings.word_embeddings.weight", "cls.predictions.bias"}


# Which config owns the vocabulary.


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"vocab_size": V}, ""),
        ({"text_config": {"vocab_size": V}}, "text_config"),
        ({"vocab_size": V, "text_config": {"vocab_size": V}}, ""),
        ({"thinker_config": {"text_config": {"vocab_size": V}}}, "thinker_config.text_config"),
        ({"audio_config": {"vocab_size": 9}, "text_config": {"vocab_size": V}}, "text_config"),
        ({"qformer_config": {"vocab_size": 9}, "text_config": {"vocab_size": V}}, "text_config"),
        ({"depth_decoder_config": {"vocab_size": 9}, "vocab_size": V}, ""),
        ({"encoder": {"vocab_size": V}, "decoder": {"vocab_size": V}}, "encoder"),
    ],
)
def test_text_config(config: dict[str, Any], path: str) -> None:
    found, text = text_config(config)
    assert found == path
    assert text["vocab_size"] == V
