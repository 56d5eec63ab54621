"""Shared by the tests of report pages: commands that write pages, and a strict reader of HTML."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from click.testing import CliRunner, Result

from tokswap.cli import main
from tokswap.report.page import COMMANDS

VOID = {"meta", "br", "hr", "img", "input", "link"}


def run(*args: object, status: int = 0) -> Result:
    """Run a command line."""
    result = CliRunner().invoke(main, [str(arg) for arg in args], prog_name="tokswap")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result


def make(folder: Path, source: Path, donor: Path, text: Path) -> dict[str, Path]:
    """Return command -> the page that it has written, and "folder" and "small", the written models."""
    out, small = folder / "result", folder / "small"
    found = {name: folder / f"{name}.html" for name in COMMANDS}
    run(
        "transplant",
        "--model",
        source,
        "--tokenizer",
        donor,
        "--init",
        "omp",
        "--out",
        out,
        "--report",
        found["transplant"],
    )
    run("trim", "--model", source, "--corpus", text, "--out", small, "--report", found["trim"], "-q")
    run(
        "eval",
        out,
        "--text",
        text,
        "--text",
        source / "tokenizer_config.json",
        "--against",
        source,
        "--tokens",
        3,
        "--report",
        found["eval"],
        "--json",
    )
    extended = ("--corpus", text, "--add", 5, "--out", folder / "extended")
    run("extend", "--model", source, *extended, "--report", found["extend"], "-q")
    run("compare", source, donor, "--report", found["compare"])
    enough = folder / "healing.txt"
    enough.write_text((text.read_text("utf-8") * 5)[:9500], encoding="utf-8")
    rates = ("--rate", 0.02, "--embedding-rate", 0.1, "--batch-tokens", 128, "--epochs", 1)
    run("heal", out, "--text", enough, *rates, "--out", folder / "healed", "--report", found["heal"], "-q")
    return {**found, "folder": out, "small": small}


class Reading(HTMLParser):
    """What is on a page. problems: what is not valid HTML, or not allowed on these pages."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: dict[str, list[str]] = {}
        self.problems: list[str] = []
        self.feed(page)
        self.close()
        self.problems += [f"<{tag}> is never closed" for tag in self.open]
        ids = self.attributes("id")
        self.problems += [f"two elements have the id {name}" for name in set(ids) if ids.count(name) > 1]
        for tag, attributes in self.tags:
            for name, value in attributes.items():
                self.problems += self._reference(tag, name, value, set(ids))
        if self.text.get("script") or "@import" in page or re.search(r"url\((?!#)", page):
            self.problems.append("a script, or something from elsewhere")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID and "svg" not in self.open:
            self.problems.append(f"<{tag}/> outside of a drawing")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> closes nothing, or another element")

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.text.setdefault(self.open[-1], []).append(data.strip())

    def attributes(self, name: str, tag: str = "") -> list[str]:
        """The values of an attribute, of all elements or of one kind."""
        return [found[name] for each, found in self.tags if name in found and tag in ("", each)]

    def count(self, tag: str) -> int:
        return sum(each == tag for each, _ in self.tags)

    @staticmethod
    def _reference(tag: str, name: str, value: str, ids: set[str]) -> list[str]:
        if tag in {"script", "link", "img", "iframe", "object", "embed", "base", "form"}:
            return [f"a page of text and drawings has no <{tag}>"]
        if name.startswith("on") or name in {"src", "srcset", "action", "data", "xlink:href"}:
            return [f"<{tag} {name}=...>"]
        inside = [value[1:]] if name == "href" else re.findall(r"url\(#([^)]*)\)", value)
        inside += value.split() if name == "aria-labelledby" else []
        wrong = name == "href" and not value.startswith("#")
        return [f"<{tag} {name}={value!r}> leads nowhere"] * (wrong or not set(inside) <= ids)
