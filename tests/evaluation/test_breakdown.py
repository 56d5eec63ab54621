from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tokswap.evaluation.bootstrap import paragraphs, per_unit
from tokswap.evaluation.breakdown import (
    AFTER,
    ALIKE,
    MISSING,
    RETOKENIZED,
    SHARED,
    STRETCH_KINDS,
    Span,
    Stretches,
    costliest_stretches,
    costliest_tokens,
    parts_by_stretch,
    parts_by_token,
)

#        0         1
#        0123456789012
TEXT = b"a new old map"
INITIALISED = np.array([50])


def span(ends: list[int], bits: list[float], ids: list[int] | None = None, begin: int = 0) -> Span:
    offsets = np.array([0, *ends])
    return Span.of(np.array(ids or range(len(ends))), offsets, np.array(bits), begin, INITIALISED)


OWN = span([1, 5, 7, 9, 13], [1, 10, 4, 2, 3], [7, 50, 8, 9, 10])  # a| new| o|ld| map
SOURCE = span([1, 5, 9, 13], [1.5, 2, 3, 3.5])  # a| new| old| map


def test_a_loss_by_token() -> None:
    parts = {part.kind: part for part in parts_by_token([OWN])}
    assert list(parts) == [MISSING, AFTER, SHARED]
    assert [(p.tokens, p.bytes, p.bits) for p in parts.values()] == [(1, 4, 10), (1, 2, 4), (3, 7, 6)]
    assert all(part.source_bits is None for part in parts.values())


def test_a_loss_by_stretch() -> None:
    found = Stretches.of(OWN, SOURCE)
    assert found.edges.tolist() == [0, 1, 5, 9, 13]
    assert [STRETCH_KINDS[n] for n in found.kind] == [ALIKE, MISSING, AFTER, ALIKE]
    parts = {part.kind: (part.tokens, part.bytes, part.bits, part.source_bits) for part in parts_by_stretch([found])}
    assert parts == {MISSING: (1, 4, 10, 2), AFTER: (2, 4, 6, 3), RETOKENIZED: (0, 0, 0, 0), ALIKE: (2, 5, 4, 5)}


def test_shared_tokens_that_the_source_tokenizes_differently() -> None:
    own = span([1, 3, 9, 13], [1, 2, 4, 8])  # a| n|ew old| map
    found = Stretches.of(own, SOURCE)
    assert found.edges.tolist() == [0, 1, 9, 13]
    assert [STRETCH_KINDS[n] for n in found.kind] == [ALIKE, RETOKENIZED, ALIKE]
    assert found.source_bits.tolist() == [1.5, 5, 3.5]


def test_a_token_after_a_missing_one_in_the_same_stretch_is_not_after() -> None:
    own = span([1, 3, 9, 13], [1, 2, 4, 8], [7, 50, 8, 9])  # the missing token and the next make one stretch
    assert [STRETCH_KINDS[n] for n in Stretches.of(own, SOURCE).kind] == [ALIKE, MISSING, ALIKE]


def test_two_missing_tokens_in_a_row_are_both_missing() -> None:
    parts = {part.kind: part.tokens for part in parts_by_token([span([1, 5, 9, 13], [1] * 4, [50, 50, 8, 9])])}
    assert parts == {MISSING: 2, AFTER: 1, SHARED: 1}


def test_a_span_may_begin_later_and_remembers_what_came_before() -> None:
    later = span([1, 5, 7, 9, 13], [1, 10, 4, 2, 3], [7, 50, 8, 9, 10], begin=5)
    assert (later.ids.tolist(), later.start.tolist()) == ([8, 9, 10], [5, 7, 9])
    assert later.after.tolist() == [True, False, False]


def test_a_token_without_bytes_counts() -> None:
    """WordPiece may have a token for text that it dropped; its bits count."""
    own = span([1, 5, 5, 9, 13, 13], [1, 1, 1, 1, 1, 1])
    found = Stretches.of(own, SOURCE)
    assert found.bits.sum() == 6
    assert per_unit(own, np.array([0, 9, 13])).sum() == 6


def test_costliest_tokens() -> None:
    text = b"x y x y z"
    own = Span.of(np.array([1, 2, 1, 2, 50]), np.array([0, 2, 4, 6, 8, 9]), np.array([1, 5, 1, 5, 9.0]), 0, INITIALISED)
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
def pairs_of_spans(draw: st.DrawFn) -> tuple[Span, Span]:
    size = draw(st.integers(1, 40))
    spans = []
    for _ in range(2):
        inner = draw(st.sets(st.integers(1, size)))
        ends = sorted(inner | {size})
        bits = draw(st.lists(st.integers(0, 20), min_size=len(ends), max_size=len(ends)))
        ids = draw(st.lists(st.sampled_from([1, 2, 50]), min_size=len(ends), max_size=len(ends)))
        spans.append(span(ends, [float(b) for b in bits], ids))
    return spans[0], spans[1]


@given(pair=pairs_of_spans())
def test_parts_add_up_to_the_whole(pair: tuple[Span, Span]) -> None:
    own, source = pair
    found = Stretches.of(own, source)
    size = int(own.end[-1])
    for parts in (parts_by_token([own]), parts_by_stretch([found])):
        assert sum(part.bits for part in parts) == own.bits.sum()
        assert sum(part.tokens for part in parts) == len(own.ids)
        assert sum(part.bytes for part in parts) == size
    assert sum(part.source_bits or 0 for part in parts_by_stretch([found])) == source.bits.sum()
    shared = set(own.end.tolist()) & set(source.end.tolist())
    assert set(found.edges.tolist()) == {0} | shared
    edges = paragraphs(b"x" * size, 3)
    assert per_unit(own, edges).sum() == own.bits.sum()
