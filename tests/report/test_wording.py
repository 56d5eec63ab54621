"""Figures as people read them."""

from __future__ import annotations

import pytest

from tokswap.report.wording import share


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (0, "0 %"),
        (1e-9, "under 0.001 %"),
        (0.00042, "0.042 %"),
        (0.0227, "2.3 %"),
        (0.9949, "99 %"),
        (0.997, "100 %"),
        (1, "100 %"),
    ],
)
def test_a_share_has_no_exponent(part: float, said: str) -> None:
    assert share(part) == said
