"""The faults of `make soak` in short: a few of each kind, for commands that stand for the others."""

from __future__ import annotations

import pytest
from soak.commands import COMMANDS
from soak.faults import KINDS, kills
from soak.ground import Ground

BY_NAME = {command.name: command for command in COMMANDS}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground(tmp_path_factory.mktemp("faults") / "ground", megabytes=2)


def test_every_command_that_writes_has_a_row() -> None:
    """A command with an --out, or one that keeps something, must not be forgotten in the table."""
    import click

    from tokswap.cli import main

    writers = set()
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        subcommands = command.commands.items() if isinstance(command, click.Group) else [("", command)]
        for inner, one in subcommands:
            if any("--out" in parameter.opts for parameter in one.params) or name == "alias":
                writers.add(f"{name} {inner}".strip())
    covered = {" ".join(command.arguments[: len(name.split())]) for name in writers for command in COMMANDS}
    assert writers <= covered, f"no row for {sorted(writers - covered)}"


@pytest.mark.parametrize(
    "name",
    [
        "transplant",
        pytest.param("transplant --force", marks=pytest.mark.slow),
        pytest.param("trim --like, adapter", marks=pytest.mark.slow),
        pytest.param("ensemble prepare", marks=pytest.mark.slow),
    ],
)
def test_kill_9(ground: Ground, name: str) -> None:
    outcome = kills(ground, BY_NAME[name], 3, seed=0)
    assert not outcome.troubles, "\n".join(outcome.troubles)
    assert outcome.counts["kills"] > 0
    assert outcome.counts["recovered"] == outcome.counts["kills"] + outcome.counts["ended before"]


@pytest.mark.parametrize(
    ("kind", "name", "times"),
    [
        ("SIGINT, SIGTERM", "transplant", 2),
        ("SIGINT, SIGTERM", "trim --like, adapter", 2),
        ("full disk", "transplant", 2),
        ("full disk", "hypernet import", 2),
        ("full disk", "trim --like, adapter", 1),
        ("read-only folder", "transplant --force", 1),
        ("read-only folder", "alias", 1),
        ("source removed", "transplant", 2),
        ("two at once", "transplant", 2),
        pytest.param("two at once", "transplant --force", 1, marks=pytest.mark.slow),
        ("two at once", "alias", 2),
    ],
)
def test_other_faults(ground: Ground, kind: str, name: str, times: int) -> None:
    outcome = KINDS[kind](ground, BY_NAME[name], times, 0)
    if outcome.counts["skipped"]:
        pytest.skip("this user may not mount anything, not even in a namespace of its own")
    assert not outcome.troubles, "\n".join(outcome.troubles)
