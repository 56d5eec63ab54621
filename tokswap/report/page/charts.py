"""Bars, stacks and distributions, drawn by matplotlib. Plain data in, `Chart` out.

Labels stand above their bars, so that long names cost no width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokswap.report.page.sheet import LETTER, TEXT, WIDTH, Chart, Sheet, shortened
from tokswap.report.page.svg import THEME
from tokswap.report.record import histogram

_BAR, _LABEL, _GAP = 12.0, 20.0, 11.0
"""Heights of a bar, of the label above it, and of the gap below."""
_PALE = 4


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        value: Its size; it may be negative.
        text: What is written at its end.
        interval: Low and high end of its whisker, None for no whisker.
    """

    value: float
    text: str
    interval: Sequence[float] | None = None


Groups = Sequence[tuple[str, Sequence[Bar]]]
"""(label, one bar per series)."""


@dataclass(frozen=True)
class _Scale:
    """Values to places across the sheet: `zero` is where 0 is, and a unit is `unit` wide."""

    zero: float
    unit: float

    @classmethod
    def of(cls, groups: Groups) -> _Scale:
        """Fit all bars and whiskers, and leave room for the longest text."""
        every = [bar for _, row in groups for bar in row]
        values = [0.0] + [value for bar in every for value in (bar.value, *(bar.interval or ()))]
        low, high = min(values), max(values)
        room = LETTER * max((len(bar.text) for bar in every), default=0) + 12
        unit = max(WIDTH - room, 0.3 * WIDTH) / ((high - low) or 1.0)
        return cls(zero=1 - low * unit, unit=unit)

    def place(self, value: float) -> float:
        return self.zero + value * self.unit


def bars(
    title: str,
    groups: Groups,
    series: Sequence[str] = (),
    *,
    colours: Sequence[int] | None = None,
    highlighted: int | None = None,
    note: str = "",
) -> Chart:
    """Draw groups of horizontal bars from a common zero.

    Args:
        title: Heading.
        groups: (label, one bar per series).
        series: Names of the series, for a legend, where there are several.
        colours: Number of each series' colour, by default in order.
        highlighted: With one series, the group that stands out; the others are pale.
        note: A remark below the drawing.
    """
    count = max((len(row) for _, row in groups), default=1)
    colours = range(count) if colours is None else colours
    height = _LABEL + count * (_BAR + 2) + _GAP
    sheet, scale = Sheet.empty(len(groups) * height), _Scale.of(groups)
    for n, (label, row) in enumerate(groups):
        top = n * height
        sheet.write(0, top + 12, shortened(label, WIDTH))
        bottom = top + _LABEL + len(row) * (_BAR + 2)
        sheet.line([scale.zero] * 2, [top + _LABEL - 3, bottom + 1], colour="--muted", width=0.8)
        for m, bar in enumerate(row):
            pale = highlighted is not None and n != highlighted
            _draw_bar(sheet, scale, bar, top + _LABEL + m * (_BAR + 2), f"--c{_PALE if pale else colours[m]}")
    several = len(series) > 1
    description = "; ".join(
        f"{label}: " + ", ".join((f"{series[m]} " if several else "") + bar.text for m, bar in enumerate(row))
        for label, row in groups
    )
    legend = [(f"--c{colours[m]}", name) for m, name in enumerate(series)] if several else []
    return sheet.chart(title, description, legend=legend, note=note)


def _draw_bar(sheet: Sheet, scale: _Scale, bar: Bar, y: float, colour: str) -> None:
    left = scale.place(min(bar.value, 0))
    sheet.box(left, y, width=abs(bar.value) * scale.unit, height=_BAR, colour=colour)
    end = scale.place(max(bar.value, 0))
    if bar.interval is not None:
        whisker = [scale.place(value) for value in bar.interval]
        sheet.line(whisker, [y + _BAR / 2] * 2, colour="--ink", width=1.2)
        end = max(end, whisker[1])
    sheet.write(end + 6, y + _BAR / 2, bar.text, muted=True, middle=True)


def stacks(
    title: str,
    rows: Sequence[tuple[str, str, Sequence[float]]],
    series: Sequence[str],
    *,
    colours: Sequence[int] = (0, 1, 2, 3),
) -> Chart:
    """Draw one bar per row, all equally long and divided among the series.

    Args:
        title: Heading.
        rows: (label, text at the right, shares of the series).
        series: Names of the series.
        colours: Number of each series' colour.
    """
    height = _LABEL + _BAR + _GAP
    sheet = Sheet.empty(len(rows) * height)
    for n, (label, text, shares) in enumerate(rows):
        top, at = n * height, 0.0
        sheet.write(0, top + 12, shortened(label, WIDTH - LETTER * (len(text) + 2)))
        sheet.write(WIDTH, top + 12, text, muted=True, right=True)
        for m, share in enumerate(shares):
            width = WIDTH * share / (sum(shares) or 1)
            if width > 0:
                sheet.box(at, top + _LABEL, width=width, height=_BAR, colour=f"--c{colours[m]}")
            at += width
    description = "; ".join(f"{label}: {text}" for label, text, _ in rows)
    legend = [(f"--c{colours[m]}", name) for m, name in enumerate(series)]
    return sheet.chart(title, description, legend=legend)


def distribution(
    title: str,
    edges: Sequence[float],
    counts: Mapping[str, Sequence[int]],
    *,
    colours: Sequence[int] = (0, 1),
    note: str = "",
) -> Chart:
    """Draw how values are distributed, each series relative to its own peak.

    Args:
        title: Heading.
        edges: Edges of the bins [n + 1].
        counts: Series -> values in each bin [n].
        colours: Number of each series' colour.
        note: A remark below the drawing.
    """
    from matplotlib.ticker import MaxNLocator

    sheet = Sheet.empty(170.0)
    axes = sheet.axes
    axes.set_axis_on()
    axes.set_position((0.005, 0.16, 0.97, 0.8))
    shown = {name: np.asarray(values, float) / max(values) for name, values in counts.items() if sum(values)}
    for m, share in enumerate(shown.values()):
        colour = THEME[f"--c{colours[m]}"]
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.35, linewidth=0)
        axes.stairs(share, edges, color=colour, linewidth=1.6)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1.05)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(THEME["--muted"])
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.tick_params(axis="x", colors=THEME["--muted"], labelsize=TEXT - 0.5, length=4)
    description = "; ".join(f"{name}: most are near {_peak(edges, share):.3g}" for name, share in shown.items())
    legend = [(f"--c{colours[m]}", f"{name} ({sum(counts[name]):,})") for m, name in enumerate(shown)]
    return sheet.chart(title, description, legend=legend, note=note)


def curve(title: str, points: Sequence[tuple[float, float]], *, across: str) -> Chart:
    """Draw how a figure changes.

    Args:
        title: Heading.
        points: (place, value), at least two, from left to right.
        across: What the places are.
    """
    from matplotlib.ticker import MaxNLocator

    sheet = Sheet.empty(190.0)
    axes = sheet.axes
    axes.set_axis_on()
    axes.set_position((0.09, 0.16, 0.885, 0.78))
    axes.plot(*zip(*points, strict=True), color=THEME["--c0"], linewidth=1.8, marker="o", markersize=3)
    axes.set_xlim(points[0][0], points[-1][0])
    low, high = (end(0.0, *(value for _, value in points)) for end in (min, max))
    axes.set_ylim(low * 1.05, high * 1.05 if high > low else low + 1.0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(THEME["--muted"])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    axes.tick_params(colors=THEME["--muted"], labelsize=TEXT - 0.5, length=4)
    first, last = points[0], points[-1]
    description = f"from {first[1]:.3f} at {first[0]:,.0f} {across} to {last[1]:.3f} at {last[0]:,.0f}"
    return sheet.chart(title, description, legend=[("--c0", f"across: {across}")])


def spread(title: str, values: Sequence[float], name: str, *, colour: int = 0) -> Chart:
    """Draw the distribution of at least one value. The last bin counts extreme values.

    Args:
        title: Heading.
        values: The values.
        name: Name of the series.
        colour: Number of its colour.
    """
    counts = histogram({name: np.asarray(values, float)})
    return distribution(title, counts.pop("edges"), counts, colours=(colour,))


def _peak(edges: Sequence[float], share: Any) -> float:
    n = int(np.argmax(share))
    return (edges[n] + edges[n + 1]) / 2
