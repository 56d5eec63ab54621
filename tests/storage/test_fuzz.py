"""Damaged inputs: hypothesis draws the damage, and shrinks what it finds. `make soak` gives a hundred thousand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import hypothesis
import pytest
from hypothesis import strategies
from soak.fuzz import Sandbox
from soak.targets import TARGETS, Target

INPUTS = {target.name: max(8, min(120, target.share)) for target in TARGETS}


@pytest.fixture(scope="module")
def sandbox_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Target], Sandbox]:
    first: list[Path] = []

    def make(target: Target) -> Sandbox:
        sandbox = Sandbox(target, tmp_path_factory.mktemp("fuzz") / "root", first[0] if first else None)
        first.append(sandbox.root)
        return sandbox

    return make


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_damaged_input_is_taken_or_refused(
    target: Target, sandbox_of: Callable[[Target], Sandbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other exception, nothing left behind, nothing done beside the folders."""
    sandbox = sandbox_of(target)
    monkeypatch.setenv("TOKSWAP_HOME", str(sandbox.root / "home"))
    monkeypatch.setenv("TOKSWAP_CACHE", str(sandbox.out / "cache"))
    outcomes = set()

    @hypothesis.settings(max_examples=INPUTS[target.name], suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(strategies.randoms(use_true_random=False))
    def damage(random: Random) -> None:
        outcomes.add(sandbox.once(random))

    damage()
    sandbox.check()
    assert outcomes - {"ok"}, "nothing was damaged"


def test_what_reads_a_file_beside_its_folder_is_seen(tmp_path: Path) -> None:
    """The watch works: a read of the secret, and a file that is written beside the output, are findings."""
    target = TARGETS[0]
    secret = lambda folder, random: (folder.parent / "secret.safetensors").read_bytes() and "ok"  # noqa: E731
    for run in (
        secret,
        lambda folder, random: (folder / "new").write_text("") or "ok",
        lambda f, r: eval("__import__('os').system('true')") or "ok",
    ):
        sandbox = Sandbox(Target("x", target.make, target.victims, run=run, share=1), tmp_path / str(id(run)))
        with pytest.raises(AssertionError, match="must not"):
            sandbox.once(Random(0))
