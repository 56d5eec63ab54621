"""NaN in rows that no text uses is no reason to refuse a model, and reaches no new row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tools
from makers import copy_model

import tokswap
from tokswap.errors import InputError

Make = Callable[..., Path]
EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def with_nan(source: Path, folder: Path, *rows: int) -> Path:
    def damage(tensors: dict[str, object]) -> None:
        for name in (EMBEDDINGS, HEAD):
            tensors[name][list(rows)] = float("nan")  # type: ignore[index]

    return tools.rewrite(copy_model(source, folder), damage)


def reserved(folder: Path) -> int:
    from transformers import AutoTokenizer

    return int(AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<unused3>"))


@pytest.mark.parametrize("init", ["mean", "subword", "omp", "tokenadapt", "kriging", "focus"])
def test_new_rows_are_finite(init: str, model_of: Make, tmp_path: Path) -> None:
    """In padding rows and reserved tokens of the model and of the donor."""
    source = model_of("llama", vocab_size=640, rows=650)
    source = with_nan(source, tmp_path / "source", reserved(source), 641, 649)
    donor = copy_model(model_of("gpt-neox", vocab_size=700, rows=710), tmp_path / "donor")
    tools.rewrite(donor, lambda tensors: tensors["gpt_neox.embed_in.weight"][705:].fill_(float("inf")))
    report = tokswap.transplant_tokenizer(str(source), str(donor), out=tmp_path / "out", init=init)
    made = tools.weights(tmp_path / "out")
    assert all(np.isfinite(made[name].numpy()).all() for name in (EMBEDDINGS, HEAD))
    assert any("3 padding rows or reserved tokens of the model are non-finite" in note for note in report.notes)


def test_the_donors_padding_rows(model_of: Make, tmp_path: Path) -> None:
    donor = copy_model(model_of("llama", vocab_size=640), tmp_path / "donor")
    donor = tools.rewrite(donor, lambda tensors: tensors[EMBEDDINGS][reserved(donor)].fill_(float("nan")))
    source, out = model_of("gpt2", vocab_size=700), tmp_path / "out"
    report = tokswap.transplant_tokenizer(str(source), str(donor), out=out, init="omp")
    assert any("1 padding rows or reserved tokens of the donor" in note for note in report.notes)
    assert np.isfinite(tools.weights(out)[tools.INPUT["gpt2"]].numpy()).all()


def test_other_rows_are_refused(model_of: Make, tmp_path: Path) -> None:
    source = with_nan(model_of("llama", vocab_size=640), tmp_path / "source", 500)
    with pytest.raises(InputError, match="the first is row 500") as caught:
        tokswap.transplant_tokenizer(
            str(source), str(model_of("gpt2", vocab_size=700)), out=tmp_path / "out", init="mean"
        )
    assert caught.value.code == "nan-in-table"
