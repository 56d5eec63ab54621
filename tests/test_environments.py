"""What is said of supported Pythons and releases: one thing in pyproject.toml, in the pins, and in what was run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import environments

ROOT = Path(__file__).parent.parent
PROJECT = (ROOT / "pyproject.toml").read_text("utf-8")


def requirements() -> dict[str, list[Requirement]]:
    """Return what tokswap and each of its extras need; Python 3.10 has no reader of TOML."""
    lists = re.findall(r"^(\w+) = \[(.*?)\]$", PROJECT, re.DOTALL | re.MULTILINE)
    return {name: [Requirement(text) for text in re.findall(r'"(.+?)"', body) if ">=" in text] for name, body in lists}


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text("utf-8").splitlines()
    return {key.lower(): version for key, _, version in (line.partition("==") for line in lines if "==" in line)}


def test_every_minimum_is_what_the_oldest_environment_has() -> None:
    lists = requirements()
    assert {"dependencies", "gguf", "encoder", "vectors", "hypernet", "lang", "parquet", "report"} <= set(lists)
    needed = {
        (one.name, str(one.specifier))
        for name, found in lists.items()
        if name not in ("dev", "requires")
        for one in found
    }
    exact = pins("constraints-lowest.txt")
    least = {(name, text, exact.get(name)) for name, text in needed}
    assert {(n, t, pin) for n, t, pin in least if pin is None or not _same(t.removeprefix(">="), pin)} == set()


def _same(least: str, pin: str) -> bool:
    """Say whether 8.1 and 8.1.0 are one release."""
    return pin == least or pin in (f"{least}.0", f"{least}.0.0")


def test_the_pythons_that_are_named_are_those_that_were_run() -> None:
    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PROJECT)
    runs = json.loads(environments.KEPT.read_text("utf-8"))["runs"]
    pythons = {run["python"].rpartition(".")[0] for run in runs} | {"3.11"}  # that one is what .ci/run has
    assert named == sorted(pythons, key=lambda text: int(text[2:]))
    assert [run for run in runs if run["failed"]] == []
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    assert f"Python {named[0]} to {named[-1]}" in readme
    assert f'requires-python = ">={named[0]}"' in PROJECT


REPORT = """<testsuites><testsuite tests="6">
<testcase classname="tests.checkpoint.test_writer" name="one" /><testcase classname="tests.checkpoint.test_writer.TestIt" name="two" />
<testcase classname="tests.checkpoint.test_writer" name="torn down badly" />
<testcase classname="tests.checkpoint.test_writer" name="torn down badly"><error message="no" /></testcase>
<testcase classname="tests.tokenizer.test_vocabulary" name="left out"><skipped message="a reason" /></testcase>
<testcase classname="tests.tokenizer.test_vocabulary" name="wrong"><failure message="1 is not 2" /></testcase>
</testsuite></testsuites>"""


def test_outcomes_are_counted(tmp_path: Path) -> None:
    (tmp_path / "outcome.xml").write_text(REPORT)
    expected = {"passed": 2, "skipped": 1, "failed": 2, "files": 2, "again": 0}
    assert environments.count([tmp_path / "outcome.xml"]) == expected
    again = '<testsuite><testcase classname="tests.tokenizer.test_vocabulary" name="wrong" /></testsuite>'
    (tmp_path / "later.xml").write_text(again)
    expected |= {"passed": 3, "failed": 1, "again": 1}
    assert environments.count([tmp_path / "outcome.xml", tmp_path / "later.xml"]) == expected


@pytest.mark.parametrize("name", ["lowest", "newest", "pinned"])
def test_a_python_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": "python3.99", "VENV": str(tmp_path / "made")}
    done = subprocess.run([ROOT / ".ci" / name], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f".ci/{name}: cannot run python3.99" in done.stderr
    assert not (tmp_path / "made").exists()
