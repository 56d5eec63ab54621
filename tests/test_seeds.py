"""A program that calls tokswap keeps its random numbers and threads, and its default device does not matter."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from makers import shipped_text

import tokswap
from tokswap.seeds import own_seed


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def begin(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def test_a_block_has_its_own_random_numbers() -> None:
    begin(1)
    expected = drawn()
    begin(2)
    inside = drawn()
    begin(1)
    with own_seed(2):
        assert drawn() == inside
    assert drawn() == expected
    begin(1)
    with pytest.raises(ValueError), own_seed(2):  # noqa: PT012
        drawn()
        raise ValueError
    assert drawn() == expected


def generate(model: str, target: str, folder: Path) -> object:
    return tokswap.generate_text(model, "The ferry", tokens=3, temperature=1.0)


def transplant(model: str, target: str, folder: Path) -> object:
    return tokswap.transplant_tokenizer(model, target, init="omp", out=folder / "out")


def heal(model: str, target: str, folder: Path) -> object:
    swapped = tokswap.transplant_tokenizer(model, target, init="subword", out=folder / "swapped").path
    (folder / "text.txt").write_text(shipped_text("english")[:3000], encoding="utf-8")
    quick: dict[str, Any] = {"batch_tokens": 512, "rate": 0.02, "embedding_rate": 0.1, "epochs": 1}
    return tokswap.heal_model(swapped, [folder / "text.txt"], out=folder / "out", **quick)


@pytest.mark.parametrize("call", [generate, transplant, heal])
def test_the_program_around_it_keeps_its_own(
    call: Callable[[str, str, Path], object], model_of: Callable[..., Path], tmp_path: Path
) -> None:
    model, target = str(model_of("llama-tied", vocab_size=640)), str(model_of("gpt-neox", vocab_size=700, seed=5))
    begin(1)
    expected = drawn()
    begin(1)
    threads = torch.get_num_threads()
    call(model, target, tmp_path)
    assert drawn() == expected
    assert torch.get_num_threads() == threads


def test_a_default_device_of_the_program_is_no_matter(model_of: Callable[..., Path], tmp_path: Path) -> None:
    pair = str(model_of("llama-tied", vocab_size=640)), str(model_of("gpt-neox", vocab_size=700, seed=5))
    plain = tokswap.transplant_tokenizer(*pair, out=tmp_path / "plain").folder
    with torch.device("meta"):
        other = tokswap.transplant_tokenizer(*pair, out=tmp_path / "other").folder
    assert plain is not None
    assert other is not None
    assert (plain / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
