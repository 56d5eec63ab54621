"""What is built from this tree: a wheel, a source archive, and the steps of the image, as far as they go without an engine."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tokswap").rglob("*.py")}
DATA = {"tokswap/py.typed", "tokswap/report/page/page.html"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("build") is None or importlib.util.find_spec("hatchling") is None:
        pytest.skip("`build` and `hatchling` are not installed")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    """`build` makes it from the source archive, so that archive is complete too."""
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        (metadata,) = (wheel.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    assert {name for name in names if ".dist-info/" not in name} == MODULES | DATA
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "Provides-Extra: report" in metadata


def test_the_source_archive_holds_what_the_tests_need(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= MODULES | DATA
    assert {
        "tests/test_packaging.py",
        "examples/demo.py",
        "docs/guide.md",
        "Makefile",
        "constraints.txt",
        "SECURITY.md",
    } <= names


# The image.


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile in order."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text("utf-8"))
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines]


def test_the_image_is_plain() -> None:
    steps = instructions()
    last = dict(steps)
    assert last["USER"] == "1000:1000", "nothing runs as root"
    assert last["ENTRYPOINT"] == '["tokswap"]'
    assert last["WORKDIR"] == "/data"
    assert [value for name, value in steps if name == "FROM"] == [
        "python:${PYTHON}-slim AS wheel",
        "python:${PYTHON}-slim",
    ]
    assert ("ARG", "TORCH_INDEX=https://download.pytorch.org/whl/cpu") in steps, (
        "CPU unless a build argument says otherwise"
    )


def test_what_the_image_copies_is_there_and_is_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    copied = {
        word
        for name, value in instructions()
        if name == "COPY" and "--from" not in value
        for word in value.split()[:-1]
    }
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)


def test_the_image_installs_extras_that_exist() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    extras = next(
        value.partition("=")[2] for name, value in instructions() if name == "ARG" and value.startswith("EXTRAS=")
    )
    assert all(re.search(rf"^{extra} = \[", project, re.M) for extra in extras.split(","))


def test_the_steps_are_shell() -> None:
    for name, value in instructions():
        if name == "RUN":
            assert subprocess.run(["sh", "-n", "-c", value], check=False).returncode == 0
            assert shlex.split(value)


def test_the_image_passes_the_linter() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
