"""An empty drawing in the width of a phone, and what is drawn on it: boxes, lines and texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from tokswap.report.page.svg import THEME, inline, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 340.0
"""Units across a drawing, about the width of a phone."""
TEXT = 13.0
"""Size of its letters."""
LETTER = 0.58 * TEXT
"""About the width of a letter. The browser chooses the font, so the width is never known."""


@dataclass(frozen=True)
class Chart:
    """A drawing on the page.

    Attributes:
        title: Its heading.
        svg: The <svg> element.
        legend: (colour, name) of each series; the page sets it as text.
        note: A remark below it.
    """

    title: str
    svg: str
    legend: tuple[tuple[str, str], ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Sheet:
    """A drawing in progress. Its units count from the upper left corner."""

    figure: Figure
    axes: Axes

    @classmethod
    def empty(cls, height: float) -> Sheet:
        """Return a sheet of some height without anything on it."""
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        height = max(height, 1.0)
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
        FigureCanvasSVG(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, WIDTH)
        axes.set_ylim(height, 0)
        axes.set_axis_off()
        return cls(figure, axes)

    def box(self, x: float, y: float, *, width: float, height: float, colour: str) -> None:
        """Fill a rectangle with a colour of the page (`--c0`)."""
        from matplotlib.patches import Rectangle

        shape = Rectangle((x, y), width, height, facecolor=THEME[colour], linewidth=0, clip_on=False)
        self.axes.add_patch(shape)

    def line(self, x: Sequence[float], y: Sequence[float], *, colour: str, width: float) -> None:
        """Draw a line from (x[0], y[0]) to (x[1], y[1])."""
        self.axes.plot(x, y, color=THEME[colour], linewidth=width, clip_on=False)

    def write(
        self, x: float, y: float, text: str, *, muted: bool = False, right: bool = False, middle: bool = False
    ) -> None:
        """Write a text.

        Args:
            x: Where it begins.
            y: Its base line.
            text: The text, as it is.
            muted: Whether to use the colour of secondary text.
            right: Whether x is where the text ends.
            middle: Whether y is its middle.
        """
        self.axes.text(
            x,
            y,
            printable(text),
            fontsize=TEXT,
            color=THEME["--muted" if muted else "--ink"],
            parse_math=False,
            ha="right" if right else "left",
            va="center_baseline" if middle else "baseline",
            clip_on=False,
        )

    def chart(self, title: str, description: str, *, legend: Sequence[tuple[str, str]] = (), note: str = "") -> Chart:
        """Finish the drawing. description: what a screen reader says."""
        digest = blake2b(f"{title}\n{description}".encode("utf-8", "replace"), digest_size=5).hexdigest()
        svg = inline(self.figure, f"c{digest}", title=title, description=description)
        return Chart(title, svg, legend=tuple(legend), note=note)


def shortened(label: str, room: float) -> str:
    """Cut a label off at its end where it is wider than the room."""
    most = max(int(room / LETTER), 8)
    return label if len(label) <= most else f"{label[: most - 1]}…"
