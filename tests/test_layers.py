"""Imports point downward. This reads them, those inside functions too, and runs nothing of the package but one import."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tokswap"
ROOMS: tuple[str, ...] = (
    "errors",
    "options",
    "distributed",
    "seeds",
    "compiled",
    "storage",
    "tokenizer",
    "checkpoint",
    "report",
    "evaluation",
    "hypernet",
    "init",
    "heal",
    "trim",
    "train",
    "transplant",
    "extend",
    "draft",
    "ensemble",
    "generation",
    "cli",
    "__init__",
    "__main__",
)
"""From the bottom to the top. A module may import what lies in a lower room, and its own room without a cycle."""
SINGLE_FILES = {"__init__", "__main__", "errors", "distributed", "seeds", "compiled"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def imports(tree: ast.AST) -> set[str]:
    """Every module that is imported anywhere in a file; `from a import b` counts as a.b where that is a module."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else str(node.module) for name in whole}
    return found


GRAPH = {name: imports(tree) for name, tree in TREES.items()}
INNER = {name: {other for other in found if other.split(".")[0] == "tokswap"} for name, found in GRAPH.items()}


def level(module: str) -> int:
    room = "__init__" if module == "tokswap" else module.split(".")[1]
    assert room in ROOMS, f"{module} is in no room; the rooms are those of the house"
    return ROOMS.index(room)


def test_the_top_of_the_house_holds_rooms_and_four_files() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == SINGLE_FILES
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(ROOMS) - SINGLE_FILES


def test_no_room_has_the_name_of_a_public_function() -> None:
    import tokswap

    assert set(tokswap.__all__) & set(ROOMS) == set()


def test_the_reading_finds_what_is_there() -> None:
    assert {"tokswap.checkpoint.reader", "tokswap.storage.atomic", "numpy"} <= GRAPH["tokswap.checkpoint.writer"]
    assert "tokswap.storage.gguf.convert" in GRAPH["tokswap.storage.resolve"], "an import inside a function"
    assert INNER["tokswap.errors"] == set()
    code = "from tokswap.trim import bpe, plan\nfrom tokswap.tokenizer.vocabulary import Kind"
    assert imports(ast.parse(code)) == {"tokswap.trim.bpe", "tokswap.trim.plan", "tokswap.tokenizer.vocabulary"}


@pytest.mark.parametrize("module", FILES)
def test_imports_point_downward(module: str) -> None:
    upward = {other for other in INNER[module] if level(other) > level(module)}
    assert not upward, f"{module} imports from a higher level"


def test_every_import_exists() -> None:
    assert {other for found in INNER.values() for other in found} <= set(FILES)


def test_no_cycles() -> None:
    graph = {name: found - {name} for name, found in INNER.items() if name != "tokswap"}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
    assert set(FILES) - {"tokswap"} <= set(order)


METHODS = sorted(name for name in FILES if name.startswith("tokswap.init.methods."))


@pytest.mark.parametrize("module", METHODS)
def test_methods_do_not_know_each_other(module: str) -> None:
    """They share kernels, whose names begin with an underscore; `init.registry` finds other methods by their names."""
    others = {other for other in INNER[module] if other.startswith("tokswap.init.methods.")}
    assert {other for other in others if not other.split(".")[-1].startswith("_")} == set()


@pytest.mark.parametrize("module", ["tokswap.init.base", "tokswap.init.blend", *METHODS])
def test_methods_see_neither_files_nor_the_command_line(module: str) -> None:
    forbidden = (
        "tokswap.checkpoint.reader",
        "tokswap.checkpoint.writer",
        "tokswap.storage",
        "tokswap.tokenizer.tokenizer",
    )
    assert GRAPH[module] & {"click", "pathlib"} == set()
    assert not [other for other in GRAPH[module] if other.startswith(forbidden)]


@pytest.mark.parametrize("module", [name for name in FILES if name.startswith("tokswap.hypernet")])
def test_the_hypernetwork_does_not_know_the_methods(module: str) -> None:
    assert {other for other in INNER[module] if other.startswith("tokswap.init")} == set()


@pytest.mark.parametrize("module", [name for name in FILES if name.startswith("tokswap.evaluation.verify")])
def test_verify_does_not_use_what_it_checks(module: str) -> None:
    """A reading that is wrong must not agree with itself: verify knows tokenizers and weights as transformers does."""
    own = {other for other in INNER[module] if other.startswith(("tokswap.tokenizer", "tokswap.checkpoint"))}
    assert own <= {
        "tokswap.checkpoint.loaded",  # saves a model that is in memory
        "tokswap.checkpoint.reader",  # refuses what is no checkpoint
        "tokswap.tokenizer.backend",  # names errors
        "tokswap.tokenizer.probes",
    }


def _uses_tokenizers(tree: ast.AST) -> bool:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "transformers":
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [node.attr]
        if any(
            name.endswith(("Tokenizer", "TokenizerFast", "PreTrainedTokenizerBase")) and name != "Tokenizer"
            for name in names
        ):
            return True
    return any(name.split(".")[0] == "tokenizers" for name in imports(tree))


def test_few_modules_use_the_tokenizer_libraries() -> None:
    assert {name for name, tree in TREES.items() if _uses_tokenizers(tree)} == {
        "tokswap.evaluation.verify.folder",
        "tokswap.tokenizer.backend",
        "tokswap.tokenizer.loaded",
        "tokswap.tokenizer.auto",
        "tokswap.storage.gguf.convert",
        "tokswap.tokenizer.tiktoken_files",
        "tokswap.train.trainers",
    }


def test_the_command_line_starts_without_heavy_libraries() -> None:
    """Nor does any command load them before it runs: `tokswap --help` asks each for its summary."""
    code = (
        "import sys, tokswap, tokswap.cli\n"
        "from importlib import import_module\n"
        "for target in tokswap.cli.COMMANDS.values(): import_module(target.partition(':')[0])\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"tokswap", "click"} <= loaded
    heavy = {
        "torch",
        "transformers",
        "numba",
        "ray",
        "scipy",
        "sklearn",
        "tokenizers",
        "huggingface_hub",
        "safetensors",
        "numpy",
        "matplotlib",
        "jinja2",
    }
    assert loaded & heavy == set()


def test_importing_the_package_is_free() -> None:
    code = "import sys, tokswap; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"numpy", "torch", "click"}.isdisjoint(done.stdout.split())


def test_the_map_names_every_room_from_the_top_down() -> None:
    page = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Add a method")[0]
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = [name.strip(" `/") for row in rows for name in row.split(",")]
    assert sorted(named) == sorted(set(ROOMS) - SINGLE_FILES)
    places = [ROOMS.index(name) for name in named]
    assert all(above >= below for above, below in zip(places, places[2:], strict=False)), "two may share a row"
