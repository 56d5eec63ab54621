from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tools
from makers import copy_model, shipped_text, with_numbers

import tokswap
from tokswap.evaluation.runs import length_note
from tokswap.init.base import Rows
from tokswap.init.diagnostics import outliers, row_notes
from tokswap.init.solver import SolvedGroup
from tokswap.init.written_rows import MadeNorms
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer
from tokswap.transplant.advice import plan_notes, template_notes, unread_scripts

Make = Callable[..., Path]

LATIN = [shipped_text("english"), shipped_text("german"), shipped_text("code")]


@pytest.fixture(scope="module")
def schemes(tokenizer_of: Make, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    """How numbers are tokenized -> a tokenizer that does."""
    patterns = {"single": r"\p{N}", "threes": r"\p{N}{1,3}", "free": None}
    made = tmp_path_factory.mktemp("digits")
    folder = tokenizer_of("byte-level")
    return {name: read_tokenizer(with_numbers(folder, made / name, pattern)) for name, pattern in patterns.items()}


@pytest.mark.parametrize("source", ["single", "threes", "free"])
@pytest.mark.parametrize("target", ["single", "threes", "free"])
def test_numbers_that_are_tokenized_differently(source: str, target: str, schemes: dict[str, Tokenizer]) -> None:
    notes = plan_notes(schemes[source], schemes[target])
    names = {"single": "single digits", "threes": "threes from the left", "free": "no fixed groups"}
    if source == target:
        assert notes == []
    else:
        assert len(notes) == 1
        assert f"{names[source]} before, {names[target]} after" in notes[0]


@pytest.mark.parametrize("family", ["byte-level", "sentencepiece", "unigram"])
def test_scripts_that_the_model_never_saw(family: str, tokenizer_of: Make) -> None:
    latin = read_tokenizer(tokenizer_of(family, vocab_size=900, seed_text=LATIN))
    russian = read_tokenizer(tokenizer_of(family, vocab_size=900, seed_text=[*LATIN, shipped_text("russian")]))
    assert list(unread_scripts(latin.vocabulary, russian.vocabulary)) == ["Cyrillic"]
    theirs, own = unread_scripts(latin.vocabulary, russian.vocabulary)["Cyrillic"]
    assert theirs > 50
    assert own == 0
    (note,) = (note for note in plan_notes(latin, russian) if "Cyrillic" in note)
    assert f"Cyrillic (0 tokens against {theirs})" in note
    for source, target in ((russian, latin), (russian, russian), (latin, latin)):
        assert unread_scripts(source.vocabulary, target.vocabulary) == {}


def test_a_script_that_both_know_a_little_of_is_no_matter(tokenizer_of: Make) -> None:
    small = read_tokenizer(tokenizer_of("sentencepiece", vocab_size=600, seed_text=[*LATIN, shipped_text("russian")]))
    large = read_tokenizer(tokenizer_of("sentencepiece", vocab_size=1500, seed_text=[*LATIN, shipped_text("russian")]))
    assert unread_scripts(small.vocabulary, large.vocabulary) == {}


def test_outliers() -> None:
    random = np.random.default_rng(0)
    values = np.exp(random.normal(1.0, 0.2, 500))
    assert outliers(values).tolist() == []
    values[[7, 300]] = [4000, 90]
    assert outliers(values).tolist() == [7, 300]
    assert outliers(values * 1e-6).tolist() == [7, 300]
    assert outliers(values[:8]).tolist() == []  # too few to know what is usual
    wide = np.exp(random.normal(1.0, 1.0, 5000))
    assert outliers(wide).tolist() == [], "a wide spread is a spread"
    same = np.full(100, 3.0)
    same[5] = 11.0
    assert outliers(same).tolist() == [], "less than four times the median is not far, however even the others are"
    same[5] = 13.0
    assert outliers(same).tolist() == [5]
    assert outliers(np.zeros(50)).tolist() == []


def solved(norms: np.ndarray, **diagnostics: np.ndarray) -> SolvedGroup:
    """What a method said about rows of these norms."""
    said = Rows(np.zeros((0, 4), np.float32), diagnostics)
    return SolvedGroup(result=said, made=MadeNorms("", norms), copied_norms=np.zeros(0, np.float32))


def test_rows_far_outside_the_others_are_named(tokenizer_of: Make) -> None:
    vocabulary = read_tokenizer(tokenizer_of("sentencepiece", vocab_size=900)).vocabulary
    missing = np.arange(300, 400)
    usual = np.exp(np.random.default_rng(1).normal(1.0, 0.1, 100)).astype(np.float32)
    groups = {"input": solved(usual, coefficient_norm=usual, residual=usual), "output": solved(usual)}
    assert row_notes(vocabulary, missing, groups) == []
    planted = usual.copy()
    planted[40] = 300
    (note,) = row_notes(vocabulary, missing, {"input": solved(usual, coefficient_norm=planted)})
    assert "1 input coefficients" in note
    assert vocabulary.readable(340) in note
    assert "do not trust the donor" in note
    (note,) = row_notes(vocabulary, missing, {"output": solved(planted)})
    assert "1 output rows" in note
    planted[:8] = 400
    (note,) = row_notes(vocabulary, missing, {"output": solved(planted)})
    assert "and 4 more" in note


def test_no_missing_token_no_note(tokenizer_of: Make) -> None:
    vocabulary = read_tokenizer(tokenizer_of("sentencepiece")).vocabulary
    assert row_notes(vocabulary, np.zeros(0, np.int64), {"input": solved(np.zeros(0, np.float32))}) == []


def test_a_text_that_takes_many_more_tokens() -> None:
    assert length_note("a.txt", 0.2, 0.24) is None
    assert length_note("a.txt", 0.4, 0.2) is None
    assert "a.txt takes 50 % more tokens" in str(length_note("a.txt", 0.2, 0.3))


def test_a_planted_token_is_named_in_the_report(model_of: Make, tmp_path: Path) -> None:
    """A donor row made of two nearly equal rows that cancel each other: only large coefficients rebuild it."""
    source = model_of("llama", vocab_size=640)
    donor = copy_model(model_of("gpt2", vocab_size=900), tmp_path / "donor")
    clean = tokswap.transplant_tokenizer(str(source), str(donor), init="omp", settings={"k": 8}, out=tmp_path / "clean")
    assert clean.notes == ()
    missing, shared = clean.alignment.missing, clean.alignment.shared
    token = int(missing[70])
    rng = np.random.default_rng(0)

    def plant(tensors: dict[str, Any]) -> None:
        import torch

        rows = tensors[tools.INPUT["gpt2"]]
        first, second = shared[100:102].tolist()
        apart = torch.tensor(rng.normal(size=rows.shape[1]), dtype=rows.dtype)
        rows[second] = rows[first] + 0.01 * apart
        rows[token] = 5 * rows[first] + 0.2 * apart

    tools.rewrite(donor, plant)
    report = tokswap.transplant_tokenizer(
        str(source), str(donor), init="omp", settings={"k": 8, "norm_guard": False}, out=tmp_path / "planted"
    )
    (note,) = (note for note in report.notes if "input coefficients" in note)
    vocabulary = read_tokenizer(donor).vocabulary
    assert note.split(": ")[1].startswith(vocabulary.readable(token))
    assert "1 input coefficients" in note


# What stands around a text.


def frame_notes_of(source: Path, target: Path, **options: Any) -> list[str]:
    plan = tokswap.plan_transplant(str(source), str(target), init="mean", out="nowhere", **options).plan
    return [note for note in plan.notes if "every text, and the result's tokenizer will not add it" in note]


def test_an_encoder_is_told_that_its_frame_is_gone(model_of: Make, tokenizer_of: Make) -> None:
    bert = model_of("bert")
    (note,) = frame_notes_of(bert, tokenizer_of("byte-level"))
    assert "[CLS] before and [SEP] after" in note
    assert "TemplateProcessing" in note
    (note,) = frame_notes_of(bert, tokenizer_of("byte-level"), bos="<|im_start|>", map_tokens=["<|im_start|>=[CLS]"])
    assert "expects [SEP] after" in note
    assert not frame_notes_of(bert, tokenizer_of("wordpiece", vocab_size=700))  # it has a frame of its own


def test_the_end_of_a_text_counts_too(model_of: Make, tokenizer_of: Make) -> None:
    (note,) = frame_notes_of(model_of("t5"), tokenizer_of("byte-level"))
    assert "expects </s> after" in note
    assert not frame_notes_of(model_of("llama", adds_bos=True), tokenizer_of("byte-level"))


def test_a_template_without_a_place_for_images(tokenizer_of: Make, tmp_path: Path) -> None:
    made = {}
    for name, part in (("reads", "image"), ("writes", "text")):
        folder = copy_model(tokenizer_of("byte-level"), tmp_path / name)
        (folder / "chat_template.jinja").write_text(
            "{% for m in messages %}{% if m.content.type == '" + part + "' %}no image here{% endif %}{% endfor %}"
        )
        made[name] = read_tokenizer(folder)
    assert "no place for image" in template_notes(made["reads"], made["writes"])[0]
    assert template_notes(made["writes"], made["reads"]) == ()
