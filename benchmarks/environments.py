"""Keep the outcome of the tests in one environment: a Python, and releases of the packages that tokswap needs.

    python benchmarks/environments.py NAME OUTCOME.xml [LATER.xml ...]

OUTCOME.xml is what `pytest --junitxml` wrote. This runs with the Python of that environment; `.ci/environment` does
both. Where failed tests ran again after a fix, LATER.xml has their new outcomes, and the table says how many there are.
results/environments.json has one run per name and Python, and docs/compatibility.md shows them.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from _machine import RESULTS

sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))

import make_cli

from tokswap.report.record import versions

KEPT = RESULTS / "environments.json"
TESTS = Path(__file__).parent.parent / "tests"
RESULTS_OF_A_TEST = ("passed", "skipped", "failed")


def outcomes(path: Path) -> dict[tuple[str, str], str]:
    """Return (class, name) of each test -> "passed", "skipped" or "failed"."""
    found: dict[tuple[str, str], str] = {}
    for case in ElementTree.parse(path).iter("testcase"):
        marks = {child.tag for child in case}
        result = "failed" if marks & {"failure", "error"} else "skipped" if "skipped" in marks else "passed"
        name = (case.get("classname") or "", case.get("name") or "")
        # A test that passes and then fails in its teardown is listed twice: as passed, and as an error.
        found[name] = max(result, found.get(name, result), key=RESULTS_OF_A_TEST.index)
    return found


def count(paths: Sequence[Path]) -> dict[str, int]:
    """Return how many tests passed, were skipped and failed, in how many files, and how many ran again."""
    first, *more = map(outcomes, paths)
    later = {name: result for found in more for name, result in found.items()}
    results = {**first, **later}
    of_result = Counter(results.values())
    known = {path.stem for path in TESTS.rglob("test_*.py")}
    files = {part for name, _ in results for part in name.split(".") if part in known}
    return {**{word: of_result[word] for word in RESULTS_OF_A_TEST}, "files": len(files), "again": len(later)}


def main() -> None:
    name, *paths = sys.argv[1:]
    run: dict[str, Any] = {
        "name": name,
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "versions": versions(),
        **count(list(map(Path, paths))),
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
