"""The machine that figures are measured on, and the files that keep them."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tokswap.report.record import versions

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Describe this machine: processor, cores, memory, and versions of libraries."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = lines[0] if lines else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions(),
    }


def keep(name: str, result: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write a result with date and machine to FOLDER/NAME.json, by default in benchmarks/results. Return the path."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    body = {"date": datetime.date.today().isoformat(), "machine": machine(), **result}
    path.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    return path


def row_apart(name: str) -> dict[str, Any]:
    """Make a row in a process of its own: this script with the same arguments and `--one NAME`. It prints JSON last."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    command = [sys.executable, *sys.argv, "--one", name]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    print(json.dumps(row), file=sys.stderr, flush=True)
    return row


def row_parser(about: str | None, rows: Iterable[str], folder: str) -> argparse.ArgumentParser:
    """Return the command line of a script that makes rows: which rows, and where texts and models are.

    Args:
        about: The description.
        rows: Names of the rows; all are made by default.
        folder: Where models go by default.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", default=[*rows], choices=[*rows])
    parser.add_argument("--texts", type=Path, default=Path("bench-texts"))
    parser.add_argument("--folder", type=Path, default=Path(folder))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser


def missing_rows(result: str, names: Iterable[str], *, key: Callable[[str], str] = str, **more: Any) -> dict[str, Any]:
    """Make the rows that are not in benchmarks/results yet, each in a process of its own, and keep all after each.

    Args:
        result: Name of the JSON file.
        names: The rows that are wanted, as `--one` takes them.
        key: Makes the key of a row in the file from its name.
        **more: What the file says beside the rows.

    Returns:
        All rows of the file.
    """
    path = RESULTS / f"{result}.json"
    rows: dict[str, Any] = json.loads(path.read_text("utf-8"))["rows"] if path.is_file() else {}
    for name in names:
        if key(name) not in rows:
            rows[key(name)] = row_apart(name)
            keep(result, {**more, "rows": rows})
    return rows


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the least and the most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}
