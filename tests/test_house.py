"""The rules of the house that a program can check: short functions, small types, construction by name, readable lines."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tokswap"
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES, MOST_FIELDS, MOST_POSITIONAL = 60, 10, 3


def short(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def dataclass_fields(node: ast.ClassDef) -> list[str] | None:
    """The fields of a dataclass, None for another class."""
    if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return None
    fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and "ClassVar" not in ast.unparse(item)]
    return [ast.unparse(item.target) for item in fields]


TREES = {path: ast.parse(path.read_text("utf-8")) for path in FILES}
DATACLASSES = {
    node.name: fields
    for tree in TREES.values()
    for node in ast.walk(tree)
    if isinstance(node, ast.ClassDef) and (fields := dataclass_fields(node)) is not None
}


@pytest.mark.parametrize("path", FILES, ids=short)
def test_functions_are_short(path: Path) -> None:
    def lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
        return (node.end_lineno or 0) - node.lineno + 1

    assert {node.name: lines(node) for node in functions(TREES[path]) if lines(node) > MOST_LINES} == {}


def test_types_are_small() -> None:
    assert {name: len(fields) for name, fields in DATACLASSES.items() if len(fields) > MOST_FIELDS} == {}


@pytest.mark.parametrize("path", FILES, ids=short)
def test_large_types_are_made_by_name(path: Path) -> None:
    calls = (node for node in ast.walk(TREES[path]) if isinstance(node, ast.Call))
    made = (call for call in calls if getattr(call.func, "id", None) in DATACLASSES)
    wrong = [f"{call.lineno}: {ast.unparse(call)[:80]}" for call in made if len(call.args) > MOST_POSITIONAL]
    assert wrong == []


@pytest.mark.parametrize("path", FILES, ids=short)
def test_lines_are_readable(path: Path) -> None:
    text = path.read_text("utf-8")
    assert "# fmt:" not in text
    assert [n for n, line in enumerate(text.splitlines(), 1) if len(line) > 120] == []


@pytest.mark.parametrize("path", FILES, ids=short)
def test_nobody_takes_options_without_types(path: Path) -> None:
    """The command line parses its flags into an options object at once; all else has typed parameters."""
    taken = [
        node.name for node in functions(TREES[path]) if node.args.kwarg is not None and node.args.kwarg.arg == "options"
    ]
    assert taken == []


def test_the_rules_can_fail() -> None:
    tree = ast.parse("@dataclass(frozen=True)\nclass A:\n    x: int\n    y: ClassVar[int]\n")
    assert dataclass_fields(tree.body[0]) == ["x"]  # type: ignore[arg-type]
