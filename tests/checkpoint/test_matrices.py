from __future__ import annotations

import pytest
from shapes import BODY, CAUSAL, D, V, matrices

from tokswap.checkpoint.matrices import VocabMatrix, head_name


def test_a_lookup_matrix_holds_the_experts_of_each_token() -> None:
    """DeepSeek-V4 sends tokens to experts by their ids in its first layers."""
    name = "model.layers.0.ffn.gate.tid2eid"
    embedding, lookup = matrices(CAUSAL, {**BODY, name: (V, 6)}, dtypes={name: "I64"})
    assert embedding.role == "input"
    assert (lookup.role, lookup.names, lookup.rows, lookup.row_bytes) == ("lookup", (name,), V, 48)


def test_rows_and_width_follow_the_stored_shape() -> None:
    shapes = {"model.shared.weight": (V, D), "final_logits_bias": (1, V), "lm_head.bias": (V,)}
    found = {matrix.names[0]: matrix for matrix in matrices(CAUSAL, shapes)}
    assert {name: (matrix.axis, matrix.rows, matrix.width) for name, matrix in found.items()} == {
        "model.shared.weight": (0, V, D),
        "final_logits_bias": (1, V, 1),
        "lm_head.bias": (0, V, 1),
    }


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
    assert head_name(VocabMatrix(names=(name,), role="input", dtype="F32", shape=(V, D))) == expected
