"""What a page is made of, and the template that puts it together. Every text is escaped; only drawings go in as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokswap.report.page.charts import Chart
from tokswap.report.page.svg import printable

ROWS = 100
"""Rows of a table that are shown; the documents have the rest."""


@dataclass(frozen=True)
class Table:
    """Rows beside a drawing, or instead of one. right: columns of numbers. code: columns of tokens and commands.

    wide: whether it takes the whole width of a page.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    right: Sequence[int] = ()
    code: Sequence[int] = ()
    note: str = ""
    wide: bool = False

    @property
    def shown(self) -> Sequence[Sequence[object]]:
        """The first rows."""
        return self.rows[:ROWS]

    @property
    def more(self) -> int:
        """How many are left out."""
        return len(self.rows) - len(self.shown)


@dataclass(frozen=True)
class Section:
    """A heading, a sentence, and drawings and tables side by side."""

    title: str
    blocks: Sequence[Chart | Table]
    intro: str = ""


@dataclass(frozen=True)
class Page:
    """A page. facts: (figure, what it is), the few that matter most. notes: what a reader must know."""

    title: str
    lead: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    notes: Sequence[str] = field(default_factory=tuple)


def html(page: Page, command: str, line: str, versions: Mapping[str, str]) -> str:
    """Return a page as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.tests["chart"] = lambda block: isinstance(block, Chart)
    environment.filters["drawing"] = lambda chart: Markup(chart.svg)
    sections = [section for section in page.sections if section.blocks]
    template = environment.get_template("page.html")
    text = template.render(page=page, sections=sections, command=command, line=line, versions=versions)
    return printable(text)


def key_values(title: str, values: Mapping[str, object], *, code: bool = False) -> Table:
    """Return a table of named values; those that are empty are left out."""
    rows = [(name, _said(value)) for name, value in values.items() if value not in (None, "", [], (), {})]
    return Table(title, ("", ""), rows, code=(1,) if code else ())


def percent(share: float) -> str:
    """Return a share for people."""
    return f"{100 * share:.1f} %"


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_said, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
