"""A source model and its transplant, for the tests that compare models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import tokswap


@pytest.fixture(scope="module")
def pair(model_of: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A source that begins texts with bos, and the source with the tokenizer of another family."""
    source = model_of("llama", vocab_size=700, adds_bos=True)
    out = tmp_path_factory.mktemp("evaluate") / "result"
    tokswap.transplant_tokenizer(str(source), str(model_of("gpt2", vocab_size=900)), init="subword", out=out)
    return source, out
