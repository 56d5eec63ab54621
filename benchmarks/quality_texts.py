"""The texts of quality.py: sets in four languages without a common text, from Debian packages and from Python itself.

- select chooses the tokens of a trimmed vocabulary, and cal heals: the Debian handbook and the standard library.
- dev is for choosing settings during development: the Debian FAQ and installed libraries.
- held is for reported figures: manual pages, Python's documentation, and other parts of the standard library and of C
  headers.
"""

from __future__ import annotations

import gzip
import html
import pydoc_data.topics
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

LANGUAGES = ("en", "code", "de", "ru")
HANDBOOK = ("debian-handbook",)
PACKAGES = {
    "select": HANDBOOK,
    "cal": HANDBOOK,
    "dev": ("debian-faq", "debian-faq-de", "debian-faq-ru"),
    "held": ("manpages-de", "manpages-ru"),
}
LIBRARY = Path(sysconfig.get_path("stdlib"))
SITE = Path(sysconfig.get_path("purelib"))
HEALING_CODE = ("argparse.py", "zipfile.py", "heapq.py", "shlex.py", "typing.py")
HELD_OUT_CODE = ("textwrap.py", "statistics.py")
BYTES = {"cal": 13_500, "dev": 9_000, "held": 12_000}


def fetch_texts(folder: Path, wanted: Iterable[str]) -> Path:
    """Write the sets that are not there yet to FOLDER/SET/LANGUAGE.txt.

    The texts come from Debian packages, which are downloaded and unpacked but not installed.

    Args:
        folder: Where the sets are.
        wanted: Names of sets.

    Returns:
        The folder.

    Raises:
        SystemExit: where apt-get or dpkg is missing or fails.
    """
    for name in wanted:
        if all((folder / name / f"{language}.txt").is_file() for language in LANGUAGES):
            continue
        for package in PACKAGES[name]:
            unpack(package, folder / "packages")
        texts = _MAKERS[name](folder / "packages")
        (folder / name).mkdir(parents=True, exist_ok=True)
        for language, text in texts.items():
            part = text.encode("utf-8")[: BYTES.get(name)]
            if not part:
                raise SystemExit(f"quality.py: no text found for {name}/{language}; give your own texts with --texts")
            (folder / name / f"{language}.txt").write_bytes(part.decode("utf-8", "ignore").encode("utf-8"))
    return folder


def healing_texts(folder: Path, kilobytes: int) -> list[Path]:
    """Write English, code and German to heal with, apart from the development and held-out sets.

    Args:
        folder: Where the sets are.
        kilobytes: Size of all three together.

    Returns:
        The files.
    """
    for package in HANDBOOK:
        unpack(package, folder / "packages")
    size = kilobytes * 1000 // 3
    code = [file for file in sorted(LIBRARY.glob("*.py"))[::2] if file.name not in HELD_OUT_CODE]
    code = [file for file in code if file.stat().st_size > 8000]
    whole = {
        "en": _handbook(folder / "packages", "en-US", slice(None), 6000),
        "de": _handbook(folder / "packages", "de-DE", slice(None), 6000),
        "code": _source(
            code[:: max(1, len(code) // (size // 3000 + 1))], 1000, max(3000, 2 * size // len(code)), "\n\n"
        ),
    }
    paths = []
    for name, text in whole.items():
        parts = max(1, size // 4000)  # from all over the text
        step = len(text) // parts
        some = "".join(text[n * step : n * step + size // parts] for n in range(parts)).encode("utf-8")[:size]
        paths.append(folder / f"heal-{kilobytes}" / f"{name}.txt")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        paths[-1].write_bytes(some.decode("utf-8", "ignore").encode("utf-8"))
    return paths


def unpack(package: str, folder: Path) -> None:
    """Download a package and unpack it in a folder, once."""
    done = folder / f"{package}.unpacked"
    if done.is_file():
        return
    missing = [tool for tool in ("apt-get", "dpkg") if shutil.which(tool) is None]
    if missing:
        raise SystemExit(
            f"quality.py: {' and '.join(missing)} not found. The texts come from Debian packages such as {package}. On "
            "other systems give your own with --texts DIR, as DIR/{select,cal,held}/{en,code,de,ru}.txt"
        )
    folder.mkdir(parents=True, exist_ok=True)
    print(f"fetching {package} ...", file=sys.stderr, flush=True)
    fetch = subprocess.run(["apt-get", "download", package], cwd=folder, capture_output=True, text=True)
    archives = sorted(folder.glob(f"{package}_*.deb"))
    if fetch.returncode or not archives:
        last = (fetch.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise SystemExit(
            f"quality.py: apt-get cannot download {package}: {last}\n`apt-get update` may help, or --texts DIR"
        )
    subprocess.run(["dpkg", "-x", archives[-1].name, "."], cwd=folder, check=True)
    done.touch()


def _plain(page: str) -> str:
    """Return an HTML page as text."""
    text = re.sub(r"(?s)<(script|style|head).*?</\1>", "", page)
    text = re.sub(r"</(p|div|h\d|li|tr|pre)>", "\n", text)
    text = re.sub(r"[ \t]+\n", "\n", html.unescape(re.sub(r"<[^>]+>", "", text)))
    return re.sub(r"\n\s*\n+", "\n\n", text)


def _pages(files: Iterable[Path], start: int, length: int) -> str:
    return "".join(_plain(file.read_text("utf-8", "replace"))[start : start + length] + "\n" for file in files)


def _handbook(packages: Path, language: str, pages: slice, length: int) -> str:
    """Return a part of some pages, without the header that all pages have."""
    folder = packages / "usr/share/doc/debian-handbook/html" / language
    return _pages(sorted(folder.glob("*.html"))[pages], 1500, length)


def _faq(packages: Path, language: str) -> str:
    folder = packages / "usr/share/doc/debian/FAQ" / language
    return _pages([file for file in sorted(folder.glob("*.html")) if "index" not in file.name], 400, 1200)


def manual_pages(packages: Path, language: str, step: int) -> list[str]:
    """Return a part of every n-th manual page, without markup."""
    pages = []
    for file in sorted((packages / "usr/share/man" / language).glob("man[1578]/*.gz"))[::step]:
        lines = gzip.decompress(file.read_bytes()).decode("utf-8", "replace").split("\n")
        page = "\n".join(line for line in lines if not line.startswith((".", "'")))
        page = re.sub(r"\\f.|\\&|\\-|\\\(..", lambda mark: "-" if mark[0] == "\\-" else "", page)
        pages.append(page[300:1100] + "\n\n")
    return pages


def _source(files: Iterable[Path], start: int, length: int, between: str = "") -> str:
    return "".join(file.read_text("utf-8", "replace")[start : start + length] + between for file in files)


def _select(packages: Path) -> dict[str, str]:
    code = [file for file in sorted(LIBRARY.glob("*.py"))[::2] if file.name not in HELD_OUT_CODE]
    texts = {name[:2]: _handbook(packages, name, slice(None), 6000) for name in ("en-US", "de-DE", "ru-RU")}
    return {**texts, "code": _source(code, 0, 20_000)}


def _healing(packages: Path) -> dict[str, str]:
    return {
        "en": _handbook(packages, "en-US", slice(10, 90, 14), 2500),
        "code": _source([LIBRARY / name for name in HEALING_CODE], 1000, 2800, "\n"),
        "de": _handbook(packages, "de-DE", slice(12, 90, 14), 2500),
        "ru": _handbook(packages, "ru-RU", slice(14, 90, 14), 2500),
    }


def _development(packages: Path) -> dict[str, str]:
    libraries = [SITE / name for name in ("click/core.py", "tqdm/std.py", "networkx/algorithms/dag.py")]
    texts = {"en": _faq(packages, ""), "de": _faq(packages, "de"), "ru": _faq(packages, "ru")}
    return {**texts, "code": _source(libraries, 1000, 3000)}


def _held_out(packages: Path) -> dict[str, str]:
    topics = pydoc_data.topics.topics
    headers = [file for file in (Path("/usr/include/stdio.h"), Path("/usr/include/stdlib.h")) if file.is_file()]
    return {
        "en": "".join(topics[name][:1500] for name in sorted(topics)[3::9]),
        "code": _source([LIBRARY / name for name in HELD_OUT_CODE], 1000, 3500, "\n")
        + _source([SITE / "tokenizers/__init__.py"], 0, 1500)
        + _source(headers, 600, 2000),
        "de": "".join(manual_pages(packages, "de", 17)),
        "ru": "".join(manual_pages(packages, "ru", 6)),
    }


_MAKERS = {"select": _select, "cal": _healing, "dev": _development, "held": _held_out}
