"""The building blocks of a page, and the template that puts them together. Every text is escaped; drawings are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokswap.report.page.sheet import Chart
from tokswap.report.page.svg import printable

ROWS = 100
"""Rows that a table shows; the documents have the rest."""


@dataclass(frozen=True)
class Table:
    """A table beside a drawing, or instead of one.

    Attributes:
        title: Its heading.
        head: Names of the columns.
        rows: Cells of each row.
        right: Columns of numbers.
        code: Columns of tokens and commands.
        note: A remark below it.
        wide: Whether it takes the whole width of the page.
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
        """Number of rows that are left out."""
        return len(self.rows) - len(self.shown)


Block = Chart | Table


@dataclass(frozen=True)
class Section:
    """A heading, an introduction, and drawings and tables side by side."""

    title: str
    blocks: Sequence[Block]
    intro: str = ""


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        title: Its heading.
        lead: One or two sentences that say what it shows.
        facts: (figure, what it is): the few that matter most.
        sections: Its sections; those without blocks are left out.
        notes: What the reader must know.
    """

    title: str
    lead: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    notes: Sequence[str] = ()


def html(page: Page, command: str, *, line: str, versions: Mapping[str, str]) -> str:
    """Return a page as HTML.

    Args:
        page: The page.
        command: Name of the command.
        line: The command line, "" where it is not known.
        versions: Library -> its version.
    """
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


def key_values(title: str, values: Mapping[str, object]) -> Table:
    """Return a table of named values; empty values are left out."""
    rows = [(name, _said(value)) for name, value in values.items() if value not in (None, "", [], (), {})]
    return Table(title, ("", ""), rows)


def percent(share: float) -> str:
    """Format a share for people."""
    return f"{100 * share:.1f} %"


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_said, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
