"""The kinds of drawings: bars, stacks and distributions, drawn by matplotlib in the width of a phone.

Labels stand above their bars, so that long names cost no width. All are plain data in, `Chart` out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

from tokswap.report.page.svg import THEME, inline, printable
from tokswap.report.record import histogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 340.0
"""Units across a drawing, which is about as wide as a phone."""
_BAR, _LABEL, _GAP, _TEXT = 12.0, 20.0, 11.0, 13.0
_LETTER = 0.58 * _TEXT
"""About the width of a letter; a page has its own fonts, so it is never known."""


@dataclass(frozen=True)
class Chart:
    """A drawing on the page. legend: (colour, name) of its series, set as text of the page."""

    title: str
    svg: str
    legend: tuple[tuple[str, str], ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Bar:
    """One bar: its length, what is written at its end, and whiskers from low to high where they are known."""

    value: float
    text: str
    interval: Sequence[float] | None = None


def bars(
    title: str,
    groups: Sequence[tuple[str, Sequence[Bar]]],
    series: Sequence[str] = (),
    *,
    colours: Sequence[int] | None = None,
    highlighted: int | None = None,
    note: str = "",
) -> Chart:
    """Draw groups of horizontal bars from a common zero. groups: (label, a bar of each series).

    series: their names, for a legend, where there are several. colours: the number of each series' colour. highlighted:
    with one series, the group that stands out; the others are pale.
    """
    count = max((len(row) for _, row in groups), default=1)
    height = _LABEL + count * (_BAR + 2) + _GAP
    figure, axes = _sheet(len(groups) * height)
    values = [0.0] + [v for _, row in groups for bar in row for v in (bar.value, *(bar.interval or ()))]
    low, high = min(values), max(values)
    room = _LETTER * max((len(bar.text) for _, row in groups for bar in row), default=0) + 12
    scale = max(WIDTH - room, 0.3 * WIDTH) / ((high - low) or 1.0)
    zero = -low * scale + 1
    colours = range(count) if colours is None else colours
    for n, (label, row) in enumerate(groups):
        top = n * height
        _say(axes, 0, top + 12, _cut(label, WIDTH))
        bottom = top + _LABEL + len(row) * (_BAR + 2)
        axes.plot([zero, zero], [top + _LABEL - 3, bottom + 1], color=THEME["--muted"], linewidth=0.8, clip_on=False)
        for m, bar in enumerate(row):
            y = top + _LABEL + m * (_BAR + 2)
            colour = THEME[f"--c{colours[m]}"]
            pale = highlighted is not None and n != highlighted
            _box(
                axes,
                zero + min(bar.value, 0) * scale,
                y,
                abs(bar.value) * scale,
                _BAR,
                THEME["--c4"] if pale else colour,
            )
            end = zero + max(bar.value, 0) * scale
            if bar.interval is not None:
                a, b = (zero + value * scale for value in bar.interval)
                axes.plot([a, b], [y + _BAR / 2] * 2, color=THEME["--ink"], linewidth=1.2, clip_on=False)
                end = max(end, b)
            _say(axes, end + 6, y + _BAR / 2, bar.text, muted=True, middle=True)
    told = "; ".join(
        f"{label}: " + ", ".join((f"{series[m]} " if len(series) > 1 else "") + bar.text for m, bar in enumerate(row))
        for label, row in groups
    )
    legend = tuple((f"--c{colours[m]}", name) for m, name in enumerate(series)) if len(series) > 1 else ()
    return _finish(figure, title, told, legend, note)


def stacks(
    title: str,
    rows: Sequence[tuple[str, str, Sequence[float]]],
    series: Sequence[str],
    *,
    colours: Sequence[int] = (0, 1, 2, 3),
) -> Chart:
    """Draw one bar a row, all of one length and divided among the series.

    rows: (label, what is said of it, shares). colours: the number of each series' colour.
    """
    height = _LABEL + _BAR + _GAP
    figure, axes = _sheet(len(rows) * height)
    for n, (label, text, shares) in enumerate(rows):
        top, at = n * height, 0.0
        _say(axes, 0, top + 12, _cut(label, WIDTH - _LETTER * (len(text) + 2)))
        _say(axes, WIDTH, top + 12, text, muted=True, right=True)
        for m, share in enumerate(shares):
            wide = WIDTH * share / (sum(shares) or 1)
            if wide > 0:
                _box(axes, at, top + _LABEL, wide, _BAR, THEME[f"--c{colours[m]}"])
            at += wide
    told = "; ".join(f"{label}: {text}" for label, text, _ in rows)
    legend = tuple((f"--c{colours[m]}", name) for m, name in enumerate(series))
    return _finish(figure, title, told, legend)


def distribution(
    title: str,
    edges: Sequence[float],
    counts: Mapping[str, Sequence[int]],
    *,
    colours: Sequence[int] = (0, 1),
    note: str = "",
) -> Chart:
    """Draw how some values are spread, each series to its own highest point. edges: n + 1. counts: series -> n numbers."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _sheet(170.0)
    axes.set_axis_on()
    axes.set_position((0.005, 0.16, 0.97, 0.8))
    shown = {name: np.asarray(values, float) / max(values) for name, values in counts.items() if sum(values)}
    for m, share in enumerate(shown.values()):
        axes.stairs(share, edges, fill=True, color=THEME[f"--c{colours[m]}"], alpha=0.35, linewidth=0)
        axes.stairs(share, edges, color=THEME[f"--c{colours[m]}"], linewidth=1.6)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1.05)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(THEME["--muted"])
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.tick_params(axis="x", colors=THEME["--muted"], labelsize=_TEXT - 0.5, length=4)
    told = "; ".join(f"{name}: most lie near {_peak(edges, share):.3g}" for name, share in shown.items())
    legend = tuple((f"--c{colours[m]}", f"{name} ({sum(counts[name]):,})") for m, name in enumerate(shown))
    return _finish(figure, title, told, legend, note)


def spread(title: str, values: Sequence[float], name: str, *, colour: int = 0) -> Chart:
    """Draw the distribution of some values, at least one. A few wild ones are counted in the last bin."""
    counts = histogram({name: np.asarray(values, float)})
    return distribution(title, counts.pop("edges"), counts, colours=(colour,))


def _peak(edges: Sequence[float], share: Any) -> float:
    n = int(np.argmax(share))
    return (edges[n] + edges[n + 1]) / 2


def _cut(label: str, room: float) -> str:
    most = max(int(room / _LETTER), 8)
    return label if len(label) <= most else f"{label[: most - 1]}…"


def _sheet(height: float) -> tuple[Figure, Axes]:
    """An empty drawing whose units count from the upper left corner."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    height = max(height, 1.0)
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
    FigureCanvasSVG(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    return figure, axes


def _box(axes: Axes, x: float, y: float, wide: float, high: float, colour: str) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x, y), wide, high, facecolor=colour, linewidth=0, clip_on=False))


def _say(
    axes: Axes, x: float, y: float, text: str, *, muted: bool = False, right: bool = False, middle: bool = False
) -> None:
    axes.text(
        x,
        y,
        printable(text),
        fontsize=_TEXT,
        color=THEME["--muted" if muted else "--ink"],
        parse_math=False,
        ha="right" if right else "left",
        va="center_baseline" if middle else "baseline",
        clip_on=False,
    )


def _finish(figure: Figure, title: str, told: str, legend: tuple[tuple[str, str], ...], note: str = "") -> Chart:
    name = "c" + blake2b(f"{title}\n{told}".encode("utf-8", "replace"), digest_size=5).hexdigest()
    return Chart(title, inline(figure, name, title, told), legend, note)
