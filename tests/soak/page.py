"""The tables of docs/reliability.md. `python -m soak.page` writes the figures of a run into the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
PAGE, FIGURES = ROOT / "docs" / "reliability.md", ROOT / "benchmarks" / "results" / "soak.json"
_BEGIN, _END = "<!-- figures: made by `python -m soak.page` -->", "<!-- end of figures -->"


def tables(found: dict[str, Any]) -> str:
    """Return the figures of soak.json as Markdown."""
    lines: list[str] = []
    if "faults" in found:
        lines += [*_faults(found["faults"], found["machine"]), ""]
    if "fuzz" in found:
        lines += [*_fuzz(found["fuzz"]), ""]
    if "shown" in found:
        lines.append(_shown(found["shown"]))
    return "\n".join(lines).rstrip()


def _faults(faults: dict[str, Any], machine: dict[str, Any]) -> list[str]:
    outcomes = faults["outcomes"]
    kills = sum(outcome.get("kills", 0) for outcome in outcomes)
    writing = sum(outcome.get("while writing", 0) for outcome in outcomes)
    where = f"{machine['processor']}, {machine['cores']} cores shared with other work, Python {machine['python']}"
    lines = [
        f"{faults['date']}, {where}: {kills} kills, {writing} of them while temporary files were there.",
        "",
        "| command | kill -9 | while writing | signals, answered | full disk | read-only | source removed "
        "| two at once | troubles |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for command in faults["commands"]:
        own = {outcome["kind"]: outcome for outcome in outcomes if outcome["command"] == command}
        cells = [", ".join(str(own[kind].get(key, 0)) for key in keys) if kind in own else "-" for kind, keys in _CELLS]
        troubles = sum(len(outcome["troubles"]) for outcome in own.values())
        lines.append(f"| {command} | {' | '.join(cells)} | {troubles} |")
    return lines


_CELLS = (
    ("kill -9", ("kills",)),
    ("kill -9", ("while writing",)),
    ("SIGINT, SIGTERM", ("sent", "stopped")),
    ("full disk", ("times",)),
    ("read-only folder", ("times",)),
    ("source removed", ("times",)),
    ("two at once", ("pairs",)),
)
"""Kind of trouble, and what is counted in each column."""


def _fuzz(fuzz: dict[str, Any]) -> list[str]:
    lines = [
        f"{fuzz['date']}, the same machine: {fuzz['inputs']:,} damaged inputs.",
        "",
        "| input | number | taken | refused | with codes | slowest | memory grew by | findings |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for target in fuzz["targets"]:
        codes = [code for code in target["codes"] if code not in ("ok", "checks failed")]
        cells = (
            target["name"],
            f"{target['inputs']:,}",
            f"{target['taken']:,}",
            f"{target['refused']:,}",
            str(len(codes)),
            f"{target['slowest_seconds']} s",
            f"{target['memory_growth_mb']:.0f} MB",
            str(len(target["findings"])),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _shown(shown: dict[str, Any]) -> str:
    ended = shown["ended"]
    return (
        f"{shown['date']}: {shown['lines']} command lines of the README, the docs and the help texts were run on tiny "
        f"models with the names that they use; {ended.get('ok', 0)} did what they should, {ended.get('left out', 0)} "
        "were left out (see `tests/soak/shown.py`)."
    )


def main() -> None:
    page = PAGE.read_text("utf-8")
    before, _, rest = page.partition(_BEGIN)
    after = rest.partition(_END)[2]
    figures = tables(json.loads(FIGURES.read_text("utf-8")))
    PAGE.write_text(f"{before}{_BEGIN}\n{figures}\n{_END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
