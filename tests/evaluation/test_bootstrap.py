from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokswap.evaluation.bootstrap import interval, paragraphs


def test_paragraphs() -> None:
    text = b"one\n\ntwo two two\n\n\nthree\n\nfour"
    edges = paragraphs(text, 5)
    assert [text[a:b] for a, b in itertools.pairwise(edges)] == [
        b"one\n\n",
        b"two two two\n\n\n",
        b"three\n\nfour",
    ]
    assert paragraphs(text, 1000).tolist() == [0, len(text)]
    assert paragraphs(b"x" * 100, 10).tolist() == [*range(0, 71, 10), 80, 100]


@given(text=st.binary(min_size=1, max_size=300), least=st.integers(1, 50))
def test_paragraphs_go_through_the_text(text: bytes, least: int) -> None:
    edges = paragraphs(text.replace(b"x", b"\n\n"), least)
    sizes = np.diff(edges)
    assert edges[0] == 0
    assert edges[-1] == len(text.replace(b"x", b"\n\n"))
    assert len(sizes) == 1 or (sizes >= least).all()
    assert (sizes < 4 * least).all() or len(sizes) == 1


def test_an_interval_holds_the_figure_and_shrinks_with_the_units() -> None:
    random = np.random.default_rng(5)
    width = {}
    for n in (20, 2000):
        bits, size = random.normal(100, 30, n), np.full(n, 100)
        low, high = interval([(bits, size)], seed=1) or (0, 0)
        assert low < bits.sum() / size.sum() < high
        # The standard error of a mean of n, twice to either side.
        assert high - low == pytest.approx(2 * 1.96 * bits.std() / 100 / np.sqrt(n), rel=0.15)
        width[n] = high - low
    assert width[2000] < width[20] / 5


def test_an_interval_is_the_same_for_the_same_seed_and_none_for_few_units() -> None:
    units = (np.array([1.0, 5, 2, 8, 3, 9]), np.full(6, 4))
    assert interval([units], seed=1) == interval([units], seed=1) != interval([units], seed=2)
    assert interval([(units[0][:4], units[1][:4])], seed=1) is None


def test_a_paired_interval_leaves_out_what_both_share() -> None:
    """Paragraphs differ far more among themselves than two models do on the same one."""
    hard = np.random.default_rng(0).normal(100, 40, 50)
    size = np.full(50, 50)
    alone = interval([(hard, size)], seed=1) or (0, 0)
    paired = interval([(hard + 1 - hard, size)], seed=1)
    assert paired == pytest.approx((0.02, 0.02))
    assert alone[1] - alone[0] > 0.2


def test_texts_keep_their_shares() -> None:
    """Two texts of 1 and 9 bits per byte, without any spread inside: the interval is a point."""
    groups = [(np.full(10, 10.0), np.full(10, 10)), (np.full(10, 90.0), np.full(10, 10))]
    assert interval(groups, seed=0) == (5.0, 5.0)
