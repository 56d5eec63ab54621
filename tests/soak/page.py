"""The tables of docs/reliability.md, from the figures of a run: `python -m soak.page` writes them into the page."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
PAGE, FIGURES = ROOT / "docs" / "reliability.md", ROOT / "benchmarks" / "results" / "soak.json"
_BEGIN, _END = "<!-- figures: made by `python -m soak.page` -->", "<!-- end of figures -->"


def tables(found: dict[str, Any]) -> str:
    """Return the figures of soak.json as Markdown."""
    lines, machine = [], found["machine"]
    if "faults" in found:
        faults = found["faults"]
        outcomes = faults["outcomes"]
        total: Counter[str] = Counter()
        for outcome in outcomes:
            total.update({key: value for key, value in outcome.items() if isinstance(value, int)})
        lines += [
            f"{faults['date']}, {machine['processor']}, {machine['cores']} cores shared with other work, Python {machine['python']}: "
            f"{total['kills']} kills, {total['while writing']} of them while temporary files were there.",
            "",
            "| command | kill -9 | while writing | signals, answered | full disk | read-only | source removed | two at once | troubles |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for command in faults["commands"]:
            own = {outcome["kind"]: outcome for outcome in outcomes if outcome["command"] == command}

            def cell(kind: str, *keys: str, own: dict[str, Any] = own) -> str:
                return ", ".join(str(own[kind].get(key, 0)) for key in keys) if kind in own else "-"

            lines.append(
                f"| {command} | {cell('kill -9', 'kills')} | {cell('kill -9', 'while writing')} "
                f"| {cell('SIGINT, SIGTERM', 'sent', 'stopped')} | {cell('full disk', 'times')} | {cell('read-only folder', 'times')} "
                f"| {cell('source removed', 'times')} | {cell('two at once', 'pairs')} "
                f"| {sum(len(outcome['troubles']) for outcome in own.values())} |"
            )
        lines.append("")
    if "fuzz" in found:
        fuzz = found["fuzz"]
        lines += [
            f"{fuzz['date']}, the same machine: {fuzz['inputs']:,} damaged inputs.",
            "",
            "| input | number | taken | refused | with codes | slowest | memory grew by | findings |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for target in fuzz["targets"]:
            codes = [code for code in target["codes"] if code not in ("ok", "checks failed")]
            lines.append(
                f"| {target['name']} | {target['inputs']:,} | {target['taken']:,} | {target['refused']:,} | {len(codes)} "
                f"| {target['slowest_seconds']} s | {target['memory_growth_mb']:.0f} MB | {len(target['findings'])} |"
            )
        lines.append("")
    if "shown" in found:
        shown, ended = found["shown"], found["shown"]["ended"]
        lines.append(
            f"{shown['date']}: {shown['lines']} command lines of the README, the docs and the help texts were run on tiny models with the names that "
            f"they use; {ended.get('ok', 0)} did what they should, {ended.get('left out', 0)} were left out (see `tests/soak/shown.py`)."
        )
    return "\n".join(lines).rstrip()


def main() -> None:
    page = PAGE.read_text("utf-8")
    before, _, rest = page.partition(_BEGIN)
    after = rest.partition(_END)[2]
    figures = tables(json.loads(FIGURES.read_text("utf-8")))
    PAGE.write_text(f"{before}{_BEGIN}\n{figures}\n{_END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
