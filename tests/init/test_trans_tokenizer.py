"""Trans-Tokenization: the aligner against IBM model 1 in plain loops, and the rows that follow from it."""

from __future__ import annotations

from collections import Counter, defaultdict
from math import exp
from pathlib import Path

import numpy as np
import pytest
from test_methods import NEW, SHARED, problem, vocabulary

from tokswap.errors import InputError, UsageError
from tokswap.init.base import BaseModel
from tokswap.init.methods import _translations
from tokswap.init.methods._translations import translations
from tokswap.init.registry import make_initializer
from tokswap.init.resources.disk import DiskResources

Lines = list[list[int]]


def reference(target: Lines, source: Lines, rounds: int) -> dict[tuple[int, int], float]:
    """IBM model 1 with the diagonal prior and an empty word, in both directions, one link after the other."""

    def fitted(ours: Lines, theirs: Lines) -> list[dict[tuple[int, int], float]]:
        together = {(a, b) for one, other in zip(ours, theirs, strict=True) for a in one for b in other}
        table = {pair: 1 / sum(b == pair[1] for _, b in together) for pair in together}
        usual = Counter(token for line in ours for token in line)
        for _ in range(rounds + 1):
            links, expected = [], defaultdict(float)
            for one, other in zip(ours, theirs, strict=True):
                links.append({})
                for i, a in enumerate(one):
                    near = [exp(-4 * abs((i + 0.5) / len(one) - (j + 0.5) / len(other))) for j in range(len(other))]
                    score = [0.92 * p / sum(near) * table[a, b] for p, b in zip(near, other, strict=True)]
                    whole = sum(score) + 0.08 * usual[a] / usual.total()
                    for j, b in enumerate(other):
                        links[-1][i, j] = score[j] / whole
                        expected[a, b] += score[j] / whole
            totals = Counter()
            for (_, b), count in expected.items():
                totals[b] += count
            table = {(a, b): count / totals[b] for (a, b), count in expected.items()}
        return links

    found: dict[tuple[int, int], float] = defaultdict(float)
    sides = zip(target, source, fitted(target, source), fitted(source, target), strict=True)
    for one, other, ahead, back in sides:
        for i, a in enumerate(one):
            for j, b in enumerate(other):
                found[a, b] += ahead[i, j] * back[j, i]
    return found


def random_lines(seed: int, lines: int = 12) -> tuple[Lines, Lines]:
    draw = np.random.default_rng(seed)
    return tuple([draw.integers(0, size, draw.integers(1, 7)).tolist() for _ in range(lines)] for size in (9, 11))


@pytest.mark.parametrize("rounds", [1, 4])
@pytest.mark.parametrize("block", [1 << 20, 10])
def test_the_aligner_is_model_1(rounds: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_translations, "_BLOCK", block)
    target, source = random_lines(rounds)
    links = translations([*target, [], [3]], [*source, [3], []], rounds)  # an empty line translates nothing
    found = dict(zip(zip(links.target.tolist(), links.source.tolist(), strict=True), links.count, strict=True))
    wanted = reference(target, source, rounds)
    assert found.keys() == wanted.keys()
    for pair, count in wanted.items():
        assert found[pair] == pytest.approx(count, rel=1e-4, abs=1e-7)


def test_nothing_to_align() -> None:
    links = translations([[], [1]], [[2], []], 3)
    assert len(links.target) == len(links.source) == len(links.count) == 0


def parallel(folder: Path, new: int = NEW - 5) -> dict[str, str]:
    """Write lines in which each new word n7 translates w7, in the same order."""
    draw = np.random.default_rng(0)
    lines = [draw.permutation(new)[:6] for _ in range(200)]
    for name, letter in (("ours", "w"), ("theirs", "n")):
        (folder / name).write_text("\n".join(" ".join(f"{letter}{n}" for n in line) for line in lines) + "\n")
    return {"source_text": str(folder / "ours"), "target_text": str(folder / "theirs")}


def test_a_new_token_gets_the_row_of_its_translation(tmp_path: Path) -> None:
    task = problem()
    found = make_initializer("trans-tokenizer", {**parallel(tmp_path), "pieces": 0})(task)
    means = make_initializer("subword")(task).rows
    np.testing.assert_allclose(found.rows[: NEW - 5], task.source.rows(np.arange(NEW - 5)), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.rows[NEW - 5 :], means[NEW - 5 :], rtol=1e-6)
    assert found.notes == (
        "trans-tokenizer: 5 of 40 new tokens have no translation in this text; each gets the mean of its pieces",
    )
    times = Counter((tmp_path / "theirs").read_text().split())
    wanted = [times[f"n{n}"] for n in range(NEW)]
    np.testing.assert_allclose(found.diagnostics["links"], wanted, rtol=0.15)


def test_pieces_weigh_as_much_as_so_many_links(tmp_path: Path) -> None:
    task, settings = problem(), parallel(tmp_path)
    alone = make_initializer("trans-tokenizer", {**settings, "pieces": 0})(task)
    mixed = make_initializer("trans-tokenizer", {**settings, "pieces": 30})(task)
    means = make_initializer("subword")(task).rows
    share = (30 / (30 + alone.diagnostics["links"]))[:, None]
    wanted = share * means + (1 - share) * alone.rows
    np.testing.assert_allclose(mixed.rows[: NEW - 5], wanted[: NEW - 5], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({}, "missing-setting"),
        ({"source_text": "ours"}, "missing-setting"),
        ({"source_text": "ours", "target_text": "nowhere"}, "unknown-file"),
        ({"source_text": "ours", "target_text": "longer"}, "unequal-lines"),
    ],
)
def test_texts_are_checked_beforehand(
    settings: dict[str, str], code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parallel(tmp_path)
    (tmp_path / "longer").write_text((tmp_path / "theirs").read_text() + "n1\n")
    base = BaseModel(vocabulary([f"w{n}" for n in range(SHARED)]), 1, rows=1, tied=True)
    with pytest.raises((InputError, UsageError)) as caught:
        make_initializer("trans-tokenizer", settings).check(base, DiskResources())
    assert caught.value.code == code
