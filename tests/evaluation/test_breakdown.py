from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokswap.evaluation.breakdown import (
    AFTER,
    ALIKE,
    MISSING,
    RECUT,
    SHARED,
    Span,
    Stretches,
    costliest_stretches,
    costliest_tokens,
    interval,
    paragraphs,
    parts_by_stretch,
    parts_by_token,
    per_unit,
)

#        0         1
#        0123456789012
TEXT = b"a new old map"
MADE = np.array([50])


def span(ends: list[int], bits: list[float], ids: list[int] | None = None, begin: int = 0) -> Span:
    offsets = np.array([0, *ends])
    return Span.of(np.array(ids or range(len(ends))), offsets, np.array(bits), begin, MADE)


OWN = span([1, 5, 7, 9, 13], [1, 10, 4, 2, 3], [7, 50, 8, 9, 10])  # a| new| o|ld| map
SOURCE = span([1, 5, 9, 13], [1.5, 2, 3, 3.5])  # a| new| old| map


def test_a_loss_by_token() -> None:
    parts = {part.kind: part for part in parts_by_token([OWN])}
    assert list(parts) == [MISSING, AFTER, SHARED]
    assert [(p.tokens, p.bytes, p.bits) for p in parts.values()] == [(1, 4, 10), (1, 2, 4), (3, 7, 6)]
    assert all(part.source_bits is None for part in parts.values())


def test_a_loss_by_stretch() -> None:
    cut = Stretches.of(OWN, SOURCE)
    assert cut.edges.tolist() == [0, 1, 5, 9, 13]
    assert [Stretches.KINDS[n] for n in cut.kind] == [ALIKE, MISSING, AFTER, ALIKE]
    parts = {part.kind: (part.tokens, part.bytes, part.bits, part.source_bits) for part in parts_by_stretch([cut])}
    assert parts == {MISSING: (1, 4, 10, 2), AFTER: (2, 4, 6, 3), RECUT: (0, 0, 0, 0), ALIKE: (2, 5, 4, 5)}


def test_shared_tokens_that_are_cut_otherwise() -> None:
    own = span([1, 3, 9, 13], [1, 2, 4, 8])  # a| n|ew old| map
    cut = Stretches.of(own, SOURCE)
    assert cut.edges.tolist() == [0, 1, 9, 13]
    assert [Stretches.KINDS[n] for n in cut.kind] == [ALIKE, RECUT, ALIKE]
    assert cut.source_bits.tolist() == [1.5, 5, 3.5]


def test_the_token_after_a_missing_one_in_its_stretch_begins_no_other() -> None:
    own = span([1, 3, 9, 13], [1, 2, 4, 8], [7, 50, 8, 9])  # the missing token and the next make one stretch
    assert [Stretches.KINDS[n] for n in Stretches.of(own, SOURCE).kind] == [ALIKE, MISSING, ALIKE]


def test_two_missing_tokens_in_a_row_are_both_missing() -> None:
    parts = {part.kind: part.tokens for part in parts_by_token([span([1, 5, 9, 13], [1] * 4, [50, 50, 8, 9])])}
    assert parts == {MISSING: 2, AFTER: 1, SHARED: 1}


def test_a_span_may_begin_later_and_remembers_what_came_before() -> None:
    later = span([1, 5, 7, 9, 13], [1, 10, 4, 2, 3], [7, 50, 8, 9, 10], begin=5)
    assert (later.ids.tolist(), later.start.tolist()) == ([8, 9, 10], [5, 7, 9])
    assert later.after.tolist() == [True, False, False]


def test_a_token_without_bytes_is_paid_for() -> None:
    """WordPiece may answer with a token for what it dropped: its bits must not get lost."""
    own = span([1, 5, 5, 9, 13, 13], [1, 1, 1, 1, 1, 1])
    cut = Stretches.of(own, SOURCE)
    assert cut.bits.sum() == 6
    assert per_unit(own, np.array([0, 9, 13])).sum() == 6


def test_costliest_tokens() -> None:
    text = b"x y x y z"
    own = Span.of(np.array([1, 2, 1, 2, 50]), np.array([0, 2, 4, 6, 8, 9]), np.array([1, 5, 1, 5, 9.0]), 0, MADE)
    first, second, third = costliest_tokens([text], [own])
    assert (first.token_bytes, first.count, first.bits, first.kind) == (b"y ", 2, 10, SHARED)
    assert (second.token_bytes, second.count, second.bits, second.kind) == (b"z", 1, 9, MISSING)
    assert (third.token_bytes, third.count, third.bits) == (b"x ", 2, 2)
    assert costliest_tokens([text], [own], count=1) == [first]


def test_costliest_stretches() -> None:
    found = costliest_stretches([TEXT], [Stretches.of(OWN, SOURCE)])
    assert [(p.token_bytes, p.kind, p.count, p.tokens, p.bits, p.source_bits) for p in found[:2]] == [
        (b" new", MISSING, 1, 1, 10, 2),
        (b" old", AFTER, 1, 2, 6, 3),
    ]
    assert found[-1].token_bytes in (b"a", b" map")


@st.composite
def cuts(draw: st.DrawFn) -> tuple[Span, Span]:
    size = draw(st.integers(1, 40))
    spans = []
    for _ in range(2):
        inner = draw(st.sets(st.integers(1, size)))
        ends = sorted(inner | {size})
        bits = draw(st.lists(st.integers(0, 20), min_size=len(ends), max_size=len(ends)))
        ids = draw(st.lists(st.sampled_from([1, 2, 50]), min_size=len(ends), max_size=len(ends)))
        spans.append(span(ends, [float(b) for b in bits], ids))
    return spans[0], spans[1]


@given(pair=cuts())
def test_parts_add_up_to_the_whole(pair: tuple[Span, Span]) -> None:
    own, source = pair
    cut = Stretches.of(own, source)
    size = int(own.end[-1])
    for parts in (parts_by_token([own]), parts_by_stretch([cut])):
        assert sum(part.bits for part in parts) == own.bits.sum()
        assert sum(part.tokens for part in parts) == len(own.ids)
        assert sum(part.bytes for part in parts) == size
    assert sum(part.source_bits or 0 for part in parts_by_stretch([cut])) == source.bits.sum()
    shared = set(own.end.tolist()) & set(source.end.tolist())
    assert set(cut.edges.tolist()) == {0} | shared
    edges = paragraphs(b"x" * size, 3)
    assert per_unit(own, edges).sum() == own.bits.sum()


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
    """Two texts that cost 1 and 9 bits a byte, without any spread inside: nothing is left to be unsure of."""
    groups = [(np.full(10, 10.0), np.full(10, 10)), (np.full(10, 90.0), np.full(10, 10))]
    assert interval(groups, seed=0) == (5.0, 5.0)
