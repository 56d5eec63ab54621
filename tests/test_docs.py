"""The docs say what the code does: error codes, generated pages, command lines, links and examples."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

import tokswap
from tokswap.cli import COMMANDS, main
from tokswap.init.registry import METHODS

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
WRITTEN = [page for page in PAGES if page.name != "cli.md"]
"""Pages with command lines of their own: those of docs/cli.md are the epilogs."""


def page_id(value: object) -> str:
    return value.name if isinstance(value, Path) else str(value)


# Error codes.

CLASSES = ("UsageError", "InputError", "OutputError", "ClusterError")


def declared_codes() -> set[str]:
    """The codes of options: `code=` where they are declared, and what they have without it."""
    calls = (
        node
        for path in sorted((ROOT / "tokswap").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "option"
    )
    named = {ast.literal_eval(word.value) for call in calls for word in call.keywords if word.arg == "code"}
    return {"bad-setting", *named}


MADE_UP: dict[tuple[str, str], set[str]] = {
    # read_json: the index is read only where it is.
    ("json_files.py", "f'missing-{what}'"): {"missing-config", "missing-map", "missing-report"},
    ("json_files.py", "f'bad-{what}'"): {
        "bad-config",
        "bad-index",
        "bad-map",
        "bad-report",
        "bad-tokenizer",
        "bad-checkpoint",
    },
    ("shards.py", "code"): {"bad-header", "truncated-weights"},
    ("resolve.py", "f'bad-{what}'"): {"bad-model", "bad-tokenizer", "bad-encoder"},
    ("resolve.py", "f'unknown-{what}'"): {"unknown-model", "unknown-tokenizer", "unknown-encoder"},
    ("declare.py", "known.code"): declared_codes(),
    ("kinds.py", "code"): declared_codes(),
    ("_output.py", "problem.code"): set(),
}
"""(file, the code as it is written there) -> the codes that it stands for, where that is not a plain string."""


def raised() -> dict[str, set[str]]:
    """Code -> the classes of error that carry it, read from the source."""
    codes: dict[str, set[str]] = {}
    unused = set(MADE_UP)
    for path in sorted((ROOT / "tokswap").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            # A program's mistake in the flags is click's to report; its code is given where the document is made.
            kind = {"error_document": "UsageError"}.get(name, name)
            if kind not in (*CLASSES, "TokswapError") or not node.args or "click" in ast.unparse(node.func):
                continue
            code = node.args[0]
            if isinstance(code, ast.Constant):
                found = {str(code.value)}
            else:
                place = (path.name, ast.unparse(code))
                assert place in MADE_UP, f"{path.name}:{node.lineno} makes up a code: add it to MADE_UP"
                unused.discard(place)
                found = MADE_UP[place]
            for each in found:
                codes.setdefault(each, set()).add(kind)
    assert not unused, f"no longer in the source: {unused}"
    return codes


RAISED = raised()


def documented() -> dict[str, str]:
    """Code -> the class whose table of docs/errors.md it stands in."""
    codes: dict[str, str] = {}
    kind = ""
    for line in (ROOT / "docs" / "errors.md").read_text("utf-8").splitlines():
        if line.startswith("## "):
            kind = line[3:].split(":")[0]
        elif row := re.match(r"\| `([^`]+)` \|(.*)\|(.*)\|$", line):
            assert row[1] not in codes, f"{row[1]} has two rows"
            assert row[2].strip(), f"{row[1]} does not say when"
            assert row[3].strip(), f"{row[1]} does not say what to do"
            codes[row[1]] = kind
    return codes


def test_the_reading_finds_codes() -> None:
    assert RAISED["unknown-method"] == {"UsageError"}
    assert RAISED["disk-full"] == {"OutputError"}
    assert len(RAISED) > 50


def test_every_code_has_a_row_and_every_row_a_code() -> None:
    rows = documented()
    assert sorted(set(RAISED) - set(rows)) == [], "without a row in docs/errors.md"
    assert sorted(set(rows) - set(RAISED)) == [], "in docs/errors.md, and never raised"


def test_rows_stand_under_their_class() -> None:
    assert [code for code, kind in documented().items() if kind not in RAISED[code]] == []


def test_rows_are_in_order() -> None:
    rows = list(documented().items())
    assert rows == sorted(rows, key=lambda row: (CLASSES.index(row[1]), row[0]))


@pytest.mark.parametrize("code", sorted(RAISED))
def test_codes_are_plain_words(code: str) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code)


# Pages that come from the code.


def test_generated_pages_are_up_to_date() -> None:
    run = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "make_cli.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_on_its_page(name: str) -> None:
    page = (ROOT / "docs" / "methods.md").read_text("utf-8")
    assert f"| `{name}` |" in page
    assert f"\n## {name}\n" in page


# Command lines.


def commands(text: str) -> list[str]:
    """Return the tokswap command lines of some lines, with continued lines joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    found = (re.match(r"\s*(?:\$ )?(tokswap(?: .*|$))", line) for line in joined.splitlines())
    return [match[1].strip() for match in found if match]


def fences(page: Path, language: str = "") -> list[str]:
    """Return the code blocks of a page in one language."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return [body for name, body in blocks if re.fullmatch(language, name)]


def inline(page: Path) -> list[str]:
    """Return the command lines that stand in the running text."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [span for span in re.findall(r"`(tokswap [^`]+)`", text) if not span.startswith("tokswap/")]


def all_commands() -> list[click.Command]:
    """Return the commands and their subcommands."""
    tops = [main.get_command(click.Context(main), name) for name in COMMANDS]
    below = [sub for command in tops if isinstance(command, click.Group) for sub in command.commands.values()]
    return [command for command in [*tops, *below] if command is not None]


def epilog_commands() -> list[str]:
    """Return the examples of the help texts."""
    group = [line for line in (main.help or "").splitlines() if line.startswith("  tokswap ")]
    epilogs = [command.epilog or "" for command in all_commands()]
    return commands("\n".join([*group, *epilogs]))


def parse(line: str) -> None:
    """Parse one command line as the shell and click would, and run nothing."""
    words = shlex.split(line.partition(" > ")[0], comments=True)
    assert words[0] == "tokswap"
    if words[1].startswith("-"):
        flags = {
            flag
            for option in main.get_params(click.Context(main, help_option_names=["-h", "--help"]))
            for flag in option.opts
        }
        assert words[1] in flags, f"tokswap has no {words[1]}"
        return
    context = click.Context(main, info_name="tokswap")
    command = main.get_command(context, words[1])
    assert command is not None, f"there is no command {words[1]}"
    name, rest = words[1], words[2:]
    while isinstance(command, click.Group):
        context = command.make_context(name, list(rest), parent=context)
        name, command, rest = command.resolve_command(context, rest)  # type: ignore[assignment]
    command.make_context(name, rest, parent=context)


EXAMPLES = sorted(
    {*epilog_commands(), *(line for page in WRITTEN for block in fences(page) for line in commands(block))}
)


@pytest.mark.parametrize("line", EXAMPLES)
def test_command_lines_parse(line: str) -> None:
    parse(line)


@pytest.mark.parametrize("page", WRITTEN, ids=page_id)
def test_commands_in_the_text_exist(page: Path) -> None:
    for span in inline(page):
        words = shlex.split(span)
        assert words[1] in COMMANDS or words[1].startswith("-"), f"`{span}` names no command"
        if words[1].startswith("-"):
            parse(span)


def test_the_reading_finds_command_lines() -> None:
    assert len(EXAMPLES) > 20
    assert {line.split()[1] for line in EXAMPLES} == set(COMMANDS), "a command without an example"


def test_a_wrong_command_line_is_found() -> None:
    for line in (
        "tokswap transplnt",
        "tokswap transplant --model A --tokenizer B --dryrun",
        "tokswap verify",
        "tokswap --verison",
    ):
        with pytest.raises((click.UsageError, AssertionError)):
            parse(line)


@pytest.mark.parametrize("page", WRITTEN, ids=page_id)
def test_flags_in_the_text_exist(page: Path) -> None:
    known = {flag for command in all_commands() for p in command.params for flag in (*p.opts, *p.secondary_opts)}
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert set(re.findall(r"(?<=`)--[a-z][a-z-]+", text)) - known - {"--help", "--version"} == set()


# Targets of make.


@pytest.mark.parametrize("page", WRITTEN, ids=page_id)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", page.read_text("utf-8"), re.MULTILINE)) <= targets


# Links.


def anchors(page: Path) -> set[str]:
    """Return the names that a page's headings can be linked by."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [page.name for page in PAGES[1:] if f"]({page.relative_to(ROOT).as_posix()})" not in readme] == []


# Examples in Python.

PYTHON = {page: blocks for page in WRITTEN if (blocks := fences(page, "python"))}


@pytest.mark.parametrize("page", PYTHON, ids=page_id)
def test_python_examples_run(
    page: Path, model_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my-model").symlink_to(model_of("llama", vocab_size=640))
    (tmp_path / "their-model").symlink_to(model_of("gpt-neox", family="byte-level", vocab_size=700, rows=707, seed=5))
    monkeypatch.chdir(tmp_path)
    for block in PYTHON[page]:
        exec(compile(block, page.name, "exec"), {})


def test_names_in_docs_exist() -> None:
    for page in WRITTEN:
        for name in re.findall(r"(?<![\w/.])tokswap\.([a-z_]+)(?=[(`])", page.read_text("utf-8")):
            if name != "json":
                assert name in tokswap.__all__ or importlib.import_module(f"tokswap.{name}"), (
                    f"{page.name}: tokswap.{name}"
                )


# Nothing of one machine.


def test_no_machine_paths_in_tracked_files() -> None:
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    homes = "|".join(["home", "root", "Users", "work"])
    pattern = re.compile(rf"(?<![\w.~-])/(?:{homes})/(?!me\b)\w+".encode())  # /home/me is a home that tests make up
    hits = []
    for name in listed.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file() and (match := pattern.search(path.read_bytes())):
            hits.append(f"{name}: {match[0].decode()}")
    assert hits == []
