from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def base(model_of: Callable[..., Path]) -> Path:
    """Return the small model at the other end of each journey: it begins no text with bos."""
    return model_of("llama", family="byte-level")
