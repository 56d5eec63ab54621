"""Functions that numba compiles work where it can keep nothing: in a container with a read-only package and no home."""

from __future__ import annotations

import numba.core.caching
import pytest

from tokswap.compiled import kept_njit


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.core.caching.CodeLibraryCacheImpl, "_locator_classes", [])
    monkeypatch.setattr(numba.core.caching.CompileResultCacheImpl, "_locator_classes", [])

    @kept_njit()
    def twice(number: int) -> int:
        return 2 * number

    assert twice(21) == 42
