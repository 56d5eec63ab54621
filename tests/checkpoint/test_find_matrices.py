from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from shapes import BODY, CAUSAL, D, Shapes, V, matrices

from tokswap.errors import InputError


def error(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], **options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        matrices(config, shapes, **options)
    return caught.value


# Refusals.

REFUSED: dict[str, tuple[str, dict[str, Any], Shapes, dict[str, str]]] = {
    "an unknown tensor with a row per token": (
        "unknown-vocab-tensor",
        CAUSAL,
        {**BODY, "model.token_scale": (V,)},
        {},
    ),
    "an unknown tensor with a column per token": (
        "unknown-vocab-tensor",
        CAUSAL,
        {**BODY, "cls.predictions.dense.weight": (D, V)},
        {},
    ),
    "a lookup matrix whose elements are not integers": (
        "quantised-table",
        CAUSAL,
        {**BODY, "model.layers.0.mlp.gate.tid2eid": (V, 6)},
        {"model.layers.0.mlp.gate.tid2eid": "F32"},
    ),
    "input-only rows (Llama 3.2 with images)": (
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
    "a head of groups of bits (HQQ)": (
        "quantised-table",
        {**CAUSAL, "tie_word_embeddings": False},
        {**BODY, "lm_head.W_q": (64, D), "lm_head.scale": (1, 4 * D), "lm_head.nbits": ()},
        {"lm_head.W_q": "U8", "lm_head.scale": "F16", "lm_head.nbits": "I64"},
    ),
    "embeddings of groups of bits (HQQ)": (
        "quantised-table",
        CAUSAL,
        {"model.embed_tokens.W_q": (64, D), "model.embed_tokens.scale": (1, 4 * D), "lm_head.weight": (V, D)},
        {"model.embed_tokens.W_q": "U8", "model.embed_tokens.scale": "F16"},
    ),
    "a quantised head of another shape": (
        "quantised-table",
        CAUSAL,
        {**BODY, "lm_head.weight": (V * D // 2, 1)},
        {"lm_head.weight": "U8"},
    ),
    "row scales beside the matrix": (
        "quantised-table",
        CAUSAL,
        {"lm_head.weight_scale": (V, 1), **BODY, "lm_head.weight": (V, D)},
        {"lm_head.weight": "F8_E4M3"},
    ),
    "fewer rows than the config says": ("vocab-size-mismatch", CAUSAL, {"model.embed_tokens.weight": (V - 1, D)}, {}),
    "a head with more rows": ("vocab-size-mismatch", CAUSAL, {**BODY, "lm_head.weight": (V + 5, D)}, {}),
    "tied embeddings with rows that are no tokens (CPM-Ant)": (
        "vocab-size-mismatch",
        {**CAUSAL, "tie_word_embeddings": True},
        {"cpmant.input_embedding.weight": (V + 32, D), "lm_head.weight": (V, D)},
        {},
    ),
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
    "a vocabulary size that is a boolean": ("bad-config", {"vocab_size": True}, BODY, {}),
    "a vocabulary of images only": ("bad-config", {"vision_config": {"vocab_size": V}}, BODY, {}),
    "an encoder and a decoder that differ": (
        "two-vocabularies",
        {"encoder": {"vocab_size": V}, "decoder": {"vocab_size": 50}},
        BODY,
        {},
    ),
    "a decoder of sound (MusicGen)": (
        "two-vocabularies",
        {"text_encoder": {"vocab_size": V}, "decoder": {"vocab_size": 64, "num_codebooks": 4}},
        {"text_encoder.shared.weight": (V, D)},
        {},
    ),
    "a talker (Qwen-Omni)": (
        "two-vocabularies",
        {"thinker_config": {"text_config": {"vocab_size": V}}, "talker_config": {"vocab_size": 48}},
        {"thinker.model.embed_tokens.weight": (V, D), "talker.model.embed_tokens.weight": (48, D)},
        {},
    ),
    "text beside sound (CSM)": (
        "two-vocabularies",
        {"vocab_size": 64, "text_vocab_size": V, "num_codebooks": 4},
        {"embed_text_tokens.weight": (V, D)},
        {},
    ),
    "text and codes of sound (Dia)": (
        "two-vocabularies",
        {"encoder_config": {"vocab_size": V}, "decoder_config": {"vocab_size": V}, "delay_pattern": [0, 8]},
        {"model.encoder.embedding.weight": (V, D), "model.decoder.embeddings.embed.weight": (9 * V, D)},
        {},
    ),
    "tokens behind the vocabulary (Idefics)": (
        "two-vocabularies",
        {"vocab_size": V, "additional_vocab_size": 2},
        {"model.embed_tokens.weight": (V, D), "model.embed_tokens.additional_embedding.weight": (2, D)},
        {},
    ),
    "codes of sound after text (Bark)": (
        "two-vocabularies",
        {"semantic_config": {"input_vocab_size": V, "output_vocab_size": 64}},
        {"semantic.input_embeds_layer.weight": (V, D)},
        {},
    ),
    "matrices that a translator does not share": (
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


def test_a_part_with_another_vocabulary_of_the_same_size() -> None:
    """The Q-Former of InstructBLIP reads the tokens of BERT; its result did not load."""
    config = {"text_config": {"vocab_size": V}, "qformer_config": {"vocab_size": V}}
    shapes = {"language_model.model.embed_tokens.weight": (V, D), "qformer.embeddings.word_embeddings.weight": (V, D)}
    assert [matrix.names for matrix in matrices(config, shapes)] == [("language_model.model.embed_tokens.weight",)]


def test_refusals_name_the_tensor() -> None:
    assert "model.token_scale" in error(CAUSAL, {**BODY, "model.token_scale": (V,)}).message
    assert "lm_head.weight has 776 rows" in error(CAUSAL, {**BODY, "lm_head.weight": (776, D)}).message


# An axis of the vocabulary's size that is another number of the model.


@pytest.mark.parametrize("key", ["hidden_size", "intermediate_size", "max_position_embeddings", "n_positions"])
@pytest.mark.parametrize("where", ["outer", "text_config", "vision_config"])
def test_a_number_of_the_config_explains_an_axis(key: str, where: str) -> None:
    config: dict[str, Any] = {**CAUSAL, "hidden_size": D}
    config = {**config, key: V} if where == "outer" else {**config, where: {key: V}}
    shapes = {**BODY, "model.layers.0.mlp.up_proj.weight": (V, D), "model.layers.0.mlp.down_proj.weight": (D, V)}
    assert [matrix.names for matrix in matrices(config, shapes)] == [("model.embed_tokens.weight",)]


@pytest.mark.parametrize("key", ["image_token_id", "image_token_index", "type_vocab_size", "pad_token_id"])
def test_an_id_or_a_vocabulary_size_explains_nothing(key: str) -> None:
    assert error({**CAUSAL, key: V}, {**BODY, "model.token_scale": (V,)}).code == "unknown-vocab-tensor"


def test_a_model_as_wide_as_its_vocabulary() -> None:
    """All its tensors have a vocabulary-sized axis; only the names tell which are vocabulary matrices."""
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
    found = {name for matrix in matrices(config, shapes) for name in matrix.names}
    assert found == {"bert.embeddings.word_embeddings.weight", "cls.predictions.bias"}
