from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import pytest

from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer

Find = Callable[..., Path]


@pytest.fixture(scope="session")
def read(tokenizer_of: Find) -> Callable[..., Tokenizer]:
    return lambda family, **options: read_tokenizer(tokenizer_of(family, **options))


@pytest.fixture
def edited(tokenizer_of: Find, tmp_path: Path) -> Callable[..., Path]:
    """Return a copy of a tokenizer whose tokenizer.json was changed by a function."""

    def edit(family: str, change: Callable[[dict[str, Any]], Any], **options: Any) -> Path:
        folder = makers.copy_model(tokenizer_of(family, **options), tmp_path / "edited")
        spec = makers.read_json(folder / "tokenizer.json")
        change(spec)
        makers.write_json(folder / "tokenizer.json", spec)
        return folder

    return edit
