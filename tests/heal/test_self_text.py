"""What the teacher's own texts begin with: parts of the user's text, and words of a language."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from makers import shipped_text

import tokswap
from tokswap.errors import InputError, UsageError
from tokswap.heal.amount import chances
from tokswap.heal.inputs import open_inputs
from tokswap.heal.options import HealOptions
from tokswap.heal.project import Tokenized
from tokswap.heal.self_text import beginnings_of, write_text
from tokswap.heal.text import Passage, Side
from tokswap.tokenizer.languages import language

Make = Callable[..., Path]

NONE = np.zeros(0)


@pytest.fixture(scope="module")
def read(model_of: Make, tmp_path_factory: pytest.TempPathFactory) -> tuple[Side, tuple[Passage, ...]]:
    """How a teacher reads, and passages as it reads them."""
    model, path = model_of("llama", adds_bos=True), tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(shipped_text("english") + shipped_text("code"), "utf-8")
    inputs = open_inputs(model, [path], HealOptions(teacher=model))
    assert inputs.text is not None
    return inputs.sides[0], inputs.text.training


def echo(more: int) -> Any:
    """A teacher that repeats the first token of a text so many times more."""

    def generate(input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.cat([input_ids, input_ids[:, 1:2].repeat(1, more)], 1)

    return SimpleNamespace(device="cpu", generate=generate)


def written(side: Side, ids: list[int]) -> str:
    return b"".join(side.tokenizer.vocabulary.token_bytes[token] for token in ids[len(side.lead) :]).decode()


def drawn(side: Side, passages: tuple[Passage, ...], rows: int) -> tuple[Counter[int], set[tuple[int, ...]]]:
    """How often each passage is gone on with, and the beginnings."""
    (some,) = beginnings_of(side, passages, [], chances(passages))
    found = [tuple(row) for row in some(rows).tolist()]
    assert all(row[: len(side.lead)] == side.lead for row in found)
    parts = [
        {tuple(ids[n : n + 32]) for n in range(len(ids))} for ids in (one.teacher.ids.tolist() for one in passages)
    ]
    return Counter(next(n for n, own in enumerate(parts) if row[len(side.lead) :] in own) for row in found), set(found)


def test_texts_go_on_with_all_passages_equally_often(read: tuple[Side, tuple[Passage, ...]]) -> None:
    side, passages = read
    passages = tuple(one for one in passages if len(one.teacher.ids) > 100)
    found, rows = drawn(side, passages, 3 * len(passages))
    assert set(found) == set(range(len(passages)))
    assert set(found.values()) <= {2, 3, 4}
    assert len(rows) > 2 * len(passages), "not always at the beginning"


def test_texts_go_on_where_the_tokenizers_differ(read: tuple[Side, tuple[Passage, ...]]) -> None:
    side, passages = read
    passages = tuple(one for one in passages if len(one.teacher.ids) > 100)[:3]
    first, second, third = (one.teacher.bounds for one in passages)
    # The student joins tokens of one passage, splits half as many of another, and agrees in the last.
    students = (first[:-40], np.concatenate([second, np.arange(20) + 100_000]), third)
    passages = tuple(
        replace(one, student=Tokenized(one.student.ids, own)) for one, own in zip(passages, students, strict=True)
    )
    assert [one.differences for one in passages] == [40, 20, 0]
    found, _ = drawn(side, passages, 99)
    assert sorted(found) == [0, 1]
    assert abs(found[0] - 66) <= 2


def test_texts_in_a_language_begin_with_its_words(read: tuple[Side, tuple[Passage, ...]]) -> None:
    side, _ = read
    german = language("de", 3000)
    (some,) = beginnings_of(side, (), [german], NONE)
    rows = some(40).tolist()
    assert len({len(row) for row in rows}) == 1
    assert len(rows) >= 10
    for row in rows:
        words = written(side, row).strip().lower().split(" ")
        assert len(words) == 3
        assert set(words) <= set(german.words), words


def test_a_language_without_spaces(read: tuple[Side, tuple[Passage, ...]]) -> None:
    side, _ = read
    (some,) = beginnings_of(side, (), [language("ja", 500)], NONE)
    rows = some(4).tolist()
    assert rows
    assert " " not in written(side, rows[0]).strip()


def test_text_and_languages_get_the_same_share(read: tuple[Side, tuple[Passage, ...]]) -> None:
    side, passages = read
    kinds = beginnings_of(side, passages, [language("de", 3000), language("fr", 3000)], chances(passages))
    assert len(kinds) == 3
    sizes = [0, 0, 0]

    def counted(n: int) -> Callable[[int], Any]:
        def some(rows: int) -> Any:
            sizes[n] += rows
            return kinds[n](rows)

        return some

    texts = list(write_text(echo(200), side, [counted(n) for n in range(3)], 30_000))
    assert 30_000 <= sum(len(text.encode()) for text in texts) < 33_000
    assert min(sizes) > 0.4 * max(sizes), sizes


def test_without_text_and_language_the_teacher_chooses(read: tuple[Side, tuple[Passage, ...]]) -> None:
    side, _ = read
    (some,) = beginnings_of(side, (), [], NONE)
    assert some(5).tolist() == [list(side.lead)] * 5


def test_a_teacher_that_ends_each_text_at_once(read: tuple[Side, tuple[Passage, ...]]) -> None:
    side, _ = read
    kinds = beginnings_of(side, (), [], NONE)
    with pytest.raises(InputError) as caught:
        list(write_text(SimpleNamespace(device="cpu", generate=lambda input_ids, **_: input_ids), side, kinds, 1000))
    assert caught.value.code == "text-too-small"


def test_a_plan_refuses_too_small_an_amount(model_of: Make, tmp_path: Path) -> None:
    model = model_of("llama")
    with pytest.raises(InputError) as caught:
        tokswap.plan_heal(model, [], teacher=model, self_text=2000, out=tmp_path / "out")
    assert caught.value.code == "text-too-small"


def test_languages_need_an_amount_and_a_word_list(model_of: Make, tmp_path: Path) -> None:
    model = model_of("llama")
    with pytest.raises(UsageError) as caught:
        tokswap.plan_heal(model, [], teacher=model, self_text_languages=["de"], out=tmp_path / "out")
    assert caught.value.code == "idle-option"
    options = {"self_text": 9000, "self_text_languages": ["de", "fr"]}
    job = tokswap.plan_heal(model, [], teacher=model, out=tmp_path / "out", **options)
    assert "the teacher writes 9,000 bytes of text first: in de, in fr" in job.plan.notes
    with pytest.raises(UsageError) as unknown:
        tokswap.plan_draft(model, model, self_text=9000, self_text_languages=["xx"], out=tmp_path / "out")
    assert unknown.value.code == "unknown-language"
