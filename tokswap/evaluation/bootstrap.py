"""Confidence intervals by bootstrap: texts, or their paragraphs, are drawn again with replacement. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tokswap.evaluation.breakdown import Span

WHOLE_FILES = 20
"""From this many texts on, the texts are the units; with fewer, their paragraphs are."""
FEWEST_UNITS = 5
"""Fewer units give no interval."""
_UNITS_PER_TEXT = 100
_LEAST_UNIT = 200
_BLOCK = 100
"""Draws per step. A long text has many units, and all draws at once would not fit into memory."""


@dataclass(frozen=True)
class Units:
    """What is drawn.

    Attributes:
        edges: Edges of the units of each text, in bytes (int64 [n + 1]).
        kind: What a unit is: "texts" or "paragraphs".
    """

    edges: Mapping[str, np.ndarray]
    kind: str

    @classmethod
    def of(cls, texts: Mapping[str, bytes]) -> Units:
        """Divide texts into units."""
        if len(texts) >= WHOLE_FILES:
            return cls({name: np.array([0, len(text)]) for name, text in texts.items()}, "texts")
        edges = {name: paragraphs(text, max(_LEAST_UNIT, len(text) // _UNITS_PER_TEXT)) for name, text in texts.items()}
        return cls(edges, "paragraphs")


def paragraphs(text: bytes, least: int) -> np.ndarray:
    """Split a text after blank lines.

    Args:
        text: The text.
        least: Smallest size of a paragraph, in bytes. A paragraph of three times this size or more is split too.

    Returns:
        The edges (int64 [n + 1]). A text without blank lines gives paragraphs of one size.
    """
    edges = [0]
    for end in [*_blank_lines(text), len(text)]:
        while end - edges[-1] >= 3 * least:
            edges.append(edges[-1] + least)
        if end - edges[-1] >= least:
            edges.append(end)
    if edges[-1] < len(text):  # what is left joins the last paragraph
        edges[-1 if len(edges) > 1 else len(edges) :] = [len(text)]
    return np.array(edges, np.int64)


def _blank_lines(text: bytes) -> Iterator[int]:
    """Yield where blank lines end."""
    at = text.find(b"\n\n")
    while at >= 0:
        end = at + 2
        while text[end : end + 1] == b"\n":
            end += 1
        yield end
        at = text.find(b"\n\n", end)


def per_unit(span: Span, edges: np.ndarray) -> np.ndarray:
    """Return the loss of each unit (float64 [n]). A token that crosses an edge counts where it begins."""
    unit = np.clip(np.searchsorted(edges, span.start, side="right") - 1, 0, len(edges) - 2)
    return np.bincount(unit, weights=span.bits, minlength=len(edges) - 1)


def interval(
    groups: Sequence[tuple[np.ndarray, np.ndarray]], seed: int, *, draws: int = 2000
) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of bits per byte.

    The draws depend on the seed and the sizes only. So differences of bits between two models give a paired interval.

    Args:
        groups: The bits (float64 [n]) and bytes (int64 [n]) of the units of each group. Each group is drawn from on its
            own and keeps its share.
        seed: Seed of the draws.
        draws: How often to draw.

    Returns:
        The lower and upper bound, or None if there are fewer than `FEWEST_UNITS` units.
    """
    if sum(len(bits) for bits, _ in groups) < FEWEST_UNITS:
        return None
    random = np.random.default_rng(seed)
    bits_drawn, bytes_drawn = np.zeros(draws), np.zeros(draws)
    for bits, size in groups:
        n = len(bits)
        for begin in range(0, draws, _BLOCK):
            times = random.multinomial(n, np.full(n, 1 / n), size=min(_BLOCK, draws - begin))
            bits_drawn[begin : begin + _BLOCK] += times @ bits
            bytes_drawn[begin : begin + _BLOCK] += times @ size
    low, high = np.percentile(bits_drawn / np.maximum(bytes_drawn, 1), [2.5, 97.5])
    return float(low), float(high)
