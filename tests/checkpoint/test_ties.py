from __future__ import annotations

from typing import Any

import pytest
from shapes import CAUSAL, D, V, matrices

from tokswap.errors import InputError


def always(first: str, second: str) -> bool:
    return True


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
    found = matrices({**outer, **config}, PAIR, same=lambda first, second: equal)
    assert [(matrix.names, matrix.is_head) for matrix in found] == expected


@pytest.mark.parametrize(("flag", "expected"), [(None, True), (True, True), (False, False)])
def test_a_head_that_is_not_stored_is_the_input_embeddings(flag: bool | None, expected: bool) -> None:
    config = CAUSAL if flag is None else {**CAUSAL, "tie_word_embeddings": flag}
    (matrix,) = matrices(config, {"model.embed_tokens.weight": (V, D)})
    assert matrix.is_head is expected
    assert matrix.role == "input"


@pytest.mark.parametrize(("flag", "found"), [(True, True), (None, False), (False, False)])
def test_a_head_alone_is_the_one_matrix_of_a_model_that_says_it_is_tied(flag: bool | None, found: bool) -> None:
    config = CAUSAL if flag is None else {**CAUSAL, "tie_word_embeddings": flag}
    shapes = {"lm_head.weight": (V, D), "model.norm.weight": (D,)}
    if not found:
        with pytest.raises(InputError, match="no input embeddings"):
            matrices(config, shapes)
        return
    (matrix,) = matrices(config, shapes)
    assert (matrix.names, matrix.role, matrix.is_head) == (("lm_head.weight",), "input", True)


def test_a_head_is_not_taken_for_input_embeddings_of_another_size() -> None:
    shapes = {"lm_head.weight": (V, D), "model.embed_tokens.weight": (V + 8, D)}
    with pytest.raises(InputError) as caught:
        matrices({**CAUSAL, "tie_word_embeddings": True}, shapes)
    assert caught.value.code == "vocab-size-mismatch"


def test_a_tie_takes_the_same_dtype_and_shape() -> None:
    found = matrices(CAUSAL, PAIR, same=always, dtypes={"lm_head.weight": "BF16"})
    assert [matrix.names for matrix in found] == [("model.embed_tokens.weight",), ("lm_head.weight",)]


FURTHER = {"model.layers.2.embed_tokens.weight": (V, D), "model.layers.2.shared_head.head.weight": (V, D)}
"""Matrices of a layer that predicts further tokens (DeepSeek-V3, GLM-4.5)."""


def test_layers_that_predict_further_tokens_have_no_part_in_the_tie() -> None:
    """Their head was taken for that of the model, which then counted as one without a tie."""
    shapes = {**FURTHER, "model.embed_tokens.weight": (V, D)}
    found = matrices({**CAUSAL, "tie_word_embeddings": True}, shapes)
    assert [(matrix.names[0], matrix.is_head, matrix.further) for matrix in found] == [
        ("model.embed_tokens.weight", True, False),
        ("model.layers.2.embed_tokens.weight", False, True),
        ("model.layers.2.shared_head.head.weight", False, True),
    ]


@pytest.mark.parametrize("names", [("a.mtp.embed_tokens.weight", "a.mtp.lm_head.weight"), tuple(FURTHER)])
def test_the_matrices_that_a_model_reads_come_first(names: tuple[str, str]) -> None:
    found = matrices({**CAUSAL, "tie_word_embeddings": False}, {**dict.fromkeys(names, (V, D)), **PAIR})
    assert [matrix.names[0] for matrix in found] == [
        "model.embed_tokens.weight",
        names[0],
        "lm_head.weight",
        names[1],
    ]


def test_copies_are_one_matrix_even_where_the_head_is_not_tied() -> None:
    shapes = {"encoder.embed_tokens.weight": (V, D), "lm_head.weight": (V, D), "shared.weight": (V, D)}
    found = matrices({**CAUSAL, "tie_word_embeddings": False}, shapes, same=always)
    assert [matrix.names for matrix in found] == [
        ("encoder.embed_tokens.weight", "shared.weight"),
        ("lm_head.weight",),
    ]


def test_the_two_names_of_a_bert_bias_are_one_matrix() -> None:
    shapes = {
        "bert.embeddings.word_embeddings.weight": (V, D),
        "cls.predictions.decoder.bias": (V,),
        "cls.predictions.bias": (V,),
    }
    config = {"architectures": ["BertForMaskedLM"], "vocab_size": V}
    assert [matrix.names for matrix in matrices(config, shapes, same=always) if matrix.role == "bias"] == [
        ("cls.predictions.decoder.bias", "cls.predictions.bias")
    ]
    assert len([matrix for matrix in matrices(config, shapes) if matrix.role == "bias"]) == 2
