from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_methods import DONOR_WIDTH, WIDTH, Words, in_context

from tokswap.checkpoint.embeddings import EmbeddingSpace
from tokswap.init.base import MatrixUse, Pieces, Problem, Rows, Tokenizers
from tokswap.init.blend import read_method
from tokswap.init.methods import auto as module
from tokswap.init.methods.auto import Auto
from tokswap.init.registry import CANDIDATES, make_initializer
from tokswap.tokenizer.alignment import Alignment, Reason, align
from tokswap.tokenizer.vocabulary import Kind, Vocabulary

LATIN, CYRILLIC, NEW = 240, 240, 30


def made_up(by_donor: str = "both", role: str = "input", noise: float = 0.05) -> Problem:
    """Latin and Cyrillic words, each of two shared ones; the source's rows are known.

    by_donor: "all": source rows are a linear map of the donor's, and parts say nothing. "none": a row is the mean of
    its parts' rows, and the donor's are noise. "both": the first for Cyrillic, the second for Latin words.
    """
    rng = np.random.default_rng(0)
    words = [f"w{n}" for n in range(LATIN)] + [f"ж{n}" for n in range(CYRILLIC)]
    more = [f"n{n}" for n in range(NEW)] + [f"я{n}" for n in range(NEW)]
    size = len(words) + len(more)
    source, target = (vocabulary(texts) for texts in (words, words + more))
    donor = rng.standard_normal((size, DONOR_WIDTH)).astype(np.float32)
    matrix = rng.standard_normal((DONOR_WIDTH, WIDTH)) / 6
    linear = np.array([word.startswith(("ж", "я")) for word in words + more])
    linear = {"all": np.ones(size, bool), "none": np.zeros(size, bool), "both": linear}[by_donor]
    rows = np.where(linear[:, None], donor @ matrix, rng.standard_normal((size, WIDTH)))
    pairs = np.full((size, 2), -1)
    atoms = [*range(40), *range(LATIN, LATIN + 40)]  # the first words of each script are made of nothing
    for n in (n for n in range(size) if n not in atoms):
        base = LATIN if (words + more)[n].startswith(("ж", "я")) else 0
        pairs[n] = base + rng.choice(40, 2, replace=False)
        if not linear[n]:
            rows[n] = rows[pairs[n]].mean(axis=0)
    rows += noise * rng.standard_normal(rows.shape)
    alignment = align(target, source)
    return Problem(
        source=EmbeddingSpace.from_array(source, rows[: len(words)].astype(np.float32)),
        donor=EmbeddingSpace.from_array(target, donor),
        target=target,
        alignment=alignment,
        missing=alignment.missing,
        pieces=Pieces.from_lists(pairs[alignment.missing].tolist()),
        matrix=MatrixUse(role, scores=role == "output"),
        tokenizers=Tokenizers(Words(source), Words(target), merge_pairs=pairs[: len(words)]),
    )


def vocabulary(texts: list[str]) -> Vocabulary:
    return Vocabulary(texts, [text.encode() for text in texts], np.full(len(texts), Kind.NORMAL, np.uint8))


def without_donor(task: Problem) -> Problem:
    return dataclasses.replace(in_context(task), donor=None)


def test_it_takes_piece_means_where_rows_are_piece_means() -> None:
    task = made_up("none")
    found = Auto()(task)
    assert found.evidence["chosen"]["all"] in ("subword", "kriging")
    errors = {entry["method"]: entry["error"] for entry in found.evidence["candidates"]}
    assert list(errors) == list(CANDIDATES[True])
    assert errors["subword"] < errors["linear"]
    assert errors["subword"] < errors["omp"]
    means = make_initializer("subword")(task).rows
    assert np.abs(found.rows - means).mean() < 0.5 * np.abs(means).mean()


def test_it_trusts_the_donor_where_rows_follow_from_it() -> None:
    found = Auto()(made_up("all")).evidence
    errors = {entry["method"]: entry["error"] for entry in found["candidates"]}
    assert found["chosen"]["all"] in ("linear", "kriging")
    assert errors["linear"] < errors["subword"]


def test_the_evidence_tells_what_was_chosen_and_why() -> None:
    found = Auto(hidden=100)(made_up()).evidence
    assert set(found) == {"hidden", "candidates", "chosen"}
    assert 24 <= found["hidden"] <= 100
    best = min(found["candidates"], key=lambda entry: entry["error"])
    assert found["chosen"]["all"] == best["method"]
    for entry in found["candidates"]:
        assert entry["seconds"] >= 0
        assert 0 <= min(entry["by_script"].values()) <= entry["error"] <= max(entry["by_script"].values())
        assert set(entry["by_script"]) == {"Latin", "Cyrillic"}


def test_a_script_gets_the_method_that_suits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CANDIDATES", {True: ("linear", "subword")})
    task = made_up()
    found = Auto()(task)
    rows, chosen = found.rows, found.evidence["chosen"]
    kinds = {"Latin": chosen.get("Latin", chosen["all"]), "Cyrillic": chosen.get("Cyrillic", chosen["all"])}
    assert kinds == {"Latin": "subword", "Cyrillic": "linear"}
    latin, cyrillic = slice(0, NEW), slice(NEW, 2 * NEW)
    np.testing.assert_allclose(rows[latin], make_initializer("subword")(task).rows[latin], atol=1e-6)
    np.testing.assert_allclose(rows[cyrillic], make_initializer("linear")(task).rows[cyrillic], atol=1e-5)


def test_without_a_donor_it_chooses_among_what_needs_none() -> None:
    task = without_donor(made_up("none"))
    found = Auto()(task)
    assert [entry["method"] for entry in found.evidence["candidates"]] == list(CANDIDATES[False])
    assert found.evidence["chosen"] == {"all": "subword"}
    np.testing.assert_allclose(found.rows, make_initializer("subword")(task).rows, atol=1e-6)


@pytest.mark.parametrize("damage", ["no tokenizers", "no pair", "few shared"])
def test_too_little_for_a_test(damage: str) -> None:
    task = made_up("none")
    assert task.tokenizers is not None
    if damage == "no tokenizers":
        task = dataclasses.replace(task, tokenizers=None)
    elif damage == "no pair":
        none = np.full_like(task.tokenizers.merge_pairs, -1)
        task = dataclasses.replace(task, tokenizers=dataclasses.replace(task.tokenizers, merge_pairs=none))
    else:
        reason = task.alignment.reason.copy()
        reason[np.flatnonzero(reason == Reason.BYTES)[50:]] = Reason.MAP
        task = dataclasses.replace(task, alignment=Alignment(task.alignment.source_of, reason))
    found = Auto()(task)
    np.testing.assert_allclose(found.rows, make_initializer("subword")(task).rows, atol=1e-6)
    assert found.evidence == {"chosen": {"all": "subword"}}
    assert found.notes == ("auto: too few shared tokens to hide for a self-test; `subword` is used",)


@pytest.mark.parametrize("donor", [True, False])
def test_a_row_that_scores_takes_a_share_of_its_first_piece(donor: bool) -> None:
    task = made_up("none", role="output")
    task = task if donor else without_donor(task)
    plain = Auto(first=0.0)(in_context(task)).rows
    first = make_initializer("subword", {"weights": "first"})(task).rows
    np.testing.assert_allclose(Auto(first=0.3)(task).rows, 0.7 * plain + 0.3 * first, atol=1e-5)
    task = dataclasses.replace(in_context(task), matrix=MatrixUse("output", scores=False))
    np.testing.assert_allclose(Auto(first=0.3)(task).rows, plain, atol=1e-6)


def test_diagnostics_are_those_of_a_method_that_computes_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CANDIDATES", {True: ("omp(k=4)",)})
    task = made_up("all")
    assert set(Auto()(task).diagnostics) == set(read_method("omp(k=4)")(task).diagnostics)
    monkeypatch.setattr(module, "CANDIDATES", {True: ("omp(k=4)", "subword")})
    found = Auto()(made_up())
    assert len(found.evidence["chosen"]) == 2
    assert not found.diagnostics


def test_the_hidden_tokens_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """No candidate may see the row that it has to guess."""
    seen: list[Problem] = []

    def spy(name: str) -> object:
        method = read_method(name)

        def call(problem: Problem) -> Rows:
            seen.append(problem)
            return method(problem)

        return call

    monkeypatch.setattr(module, "read_method", spy)
    task = made_up()
    Auto()(task)
    tests = [problem for problem in seen if not np.isin(problem.missing, task.missing).any()]
    assert len(tests) == len(CANDIDATES[True])
    for problem in tests:
        assert np.intersect1d(problem.missing, problem.anchors).size == 0
        assert (problem.alignment.source_of[problem.missing] == -1).all()
        assert np.isin(problem.missing, task.anchors).all()
        assert problem.context.cache is not task.context.cache
    assert (task.alignment.source_of[tests[0].missing] >= 0).all(), "the problem itself is left alone"
