from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from makers import CHAT_TEMPLATE, copy_model, edit_json

import tokswap

Make = Callable[..., Path]


@pytest.fixture(scope="session")
def small(model_of: Make) -> Path:
    return model_of("llama", vocab_size=640, adds_bos=True)


@pytest.fixture(scope="session")
def big(model_of: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target with padded rows, several eos ids, a chat template and a generation config of its own."""
    folder = copy_model(
        model_of("gpt2", vocab_size=700, rows=720, chat_template=CHAT_TEMPLATE), tmp_path_factory.mktemp("big") / "big"
    )
    edit_json(folder / "config.json", eos_token_id=[2, 0])
    edit_json(folder / "generation_config.json", eos_token_id=[2, 0], pad_token_id=2, temperature=0.6, do_sample=True)
    return folder


@pytest.fixture(scope="session")
def drafted(small: Path, big: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("draft") / "draft"
    tokswap.make_draft(str(small), str(big), init="subword", out=out)
    return out
