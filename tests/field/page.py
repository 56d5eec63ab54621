"""The table of real tokenizers in docs/reliability.md: `python -m field.page FOLDER` keeps and writes a run's outcomes."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "reliability.md"
STEPS = ("inspect", "onto it", "away from it", "trim", "extend")
KINDS = ("works", "refused", "wrong")
_BEGIN, _END = "<!-- field: made by `python -m field.page` -->", "<!-- end of field -->"


def collect(folder: Path) -> dict[str, Any]:
    """Read the outcomes of a run, and the reasons of tokenizers that could not be had."""
    known = json.loads((folder / "fetched.json").read_text("utf-8"))
    tried = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted((folder / "outcomes").glob("*.json"))}
    return {
        "tried": len(tried),
        "not_to_be_had": {name: entry["reason"] for name, entry in known.items() if "reason" in entry},
        "counts": {step: _count(tried, step) for step in STEPS},
        "seconds": round(sum(outcome["seconds"] for entry in tried.values() for outcome in entry["outcomes"])),
        "tokenizers": tried,
    }


def _count(tried: dict[str, Any], step: str) -> dict[str, int]:
    kinds = Counter(one["kind"] for entry in tried.values() for one in entry["outcomes"] if one["step"] == step)
    return {kind: kinds[kind] for kind in KINDS}


def tables(found: dict[str, Any]) -> str:
    """Return the outcomes as Markdown."""
    versions = found["machine"]["versions"]
    fine = sum(all(one["kind"] == "works" for one in entry["outcomes"]) for entry in found["tokenizers"].values())
    lines = [
        f"{found['date']}, transformers {versions['transformers']}: tried {found['tried']} real tokenizers; every step "
        f"works for {fine} of them.",
        "",
        "| step | works | refused, with a code | wrong |",
        "| --- | --- | --- | --- |",
        *(f"| {step} | {' | '.join(str(found['counts'][step][kind]) for kind in KINDS)} |" for step in STEPS),
        "",
    ]
    rest = [_row(name, entry) for name, entry in found["tokenizers"].items()]
    if any(rest):
        lines += ["| tokenizer | what does not work |", "| --- | --- |", *filter(None, rest), ""]
    if found["not_to_be_had"]:
        lines += [f"Not to be had: {', '.join(found['not_to_be_had'])}.", ""]
    return "\n".join(lines)


def _row(name: str, entry: dict[str, Any]) -> str:
    """Return a row for a tokenizer with a step that does not work."""
    told = [
        f"{one['step']}: {one['kind']}, {_first(one['details'])}" for one in entry["outcomes"] if one["kind"] != "works"
    ]
    return f"| {name} | {'; '.join(told)} |" if told else ""


def _first(details: list[str]) -> str:
    text = details[0].removeprefix("error: ").replace("|", "\\|").replace("\n", " ")
    return f"`{text[:137]}...`" if len(text) > 140 else f"`{text}`"


def main() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from _machine import keep

    path = keep("field", collect(Path(sys.argv[1])))
    before, _, rest = PAGE.read_text("utf-8").partition(_BEGIN)
    after = rest.partition(_END)[2]
    PAGE.write_text(f"{before}{_BEGIN}\n{tables(json.loads(path.read_text('utf-8')))}{_END}{after}", encoding="utf-8")
    print(f"wrote {path} and {PAGE}")


if __name__ == "__main__":
    main()
