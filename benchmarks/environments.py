"""Keep what came of the tests in one environment: a Python, and releases of what tokswap builds on.

    python benchmarks/environments.py NAME OUTCOME.xml

OUTCOME.xml is what `pytest --junitxml` wrote, and this runs with the Python of that environment: `.ci/environment` does
both. results/environments.json has one run for each name and Python, and docs/compatibility.md is made from them.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from _machine import RESULTS

sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))

import make_cli

from tokswap.report import versions

KEPT = RESULTS / "environments.json"
TESTS = Path(__file__).parent.parent / "tests"


def outcome(path: Path) -> dict[str, int]:
    """Return how many tests passed, were skipped and failed, and how many files they stand in."""
    cases = list(ElementTree.parse(path).iter("testcase"))
    # A test that ran and then failed in its teardown is two cases here: one that passed, and an error.
    results: dict[tuple[str, str], str] = {}
    order = ("passed", "skipped", "failed")
    for case in cases:
        marks = {child.tag for child in case}
        result = "failed" if marks & {"failure", "error"} else "skipped" if "skipped" in marks else "passed"
        name = (case.get("classname") or "", case.get("name") or "")
        results[name] = max(result, results.get(name, result), key=order.index)
    count = Counter(results.values())
    files = {part for name, _ in results for part in name.split(".") if (TESTS / f"{part}.py").is_file()}
    return {**{word: count[word] for word in order}, "files": len(files)}


def main() -> None:
    name, path = sys.argv[1:]
    run: dict[str, Any] = {
        "name": name,
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "versions": versions(),
        **outcome(Path(path)),
    }
    runs = json.loads(KEPT.read_text("utf-8"))["runs"] if KEPT.is_file() else []

    def place(one: dict[str, Any]) -> tuple[list[int], str]:
        return [int(part) for part in one["python"].split(".")[:2]], one["name"]

    runs = sorted([*(one for one in runs if place(one) != place(run)), run], key=place)
    KEPT.write_text(json.dumps({"runs": runs}, indent=2) + "\n", "utf-8")
    (make_cli.DOCS / "compatibility.md").write_text(make_cli.compatibility(), "utf-8")
    print("kept in", KEPT, run)


if __name__ == "__main__":
    main()
