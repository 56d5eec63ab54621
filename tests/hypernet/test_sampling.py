"""Sampled tokenizers: what is in them, and that texts, seed and step alone decide it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import makers
import numpy as np
import pytest

from tokswap.errors import InputError
from tokswap.hypernet.sampling import LONGEST, SMALLEST, Sampler, Texts
from tokswap.tokenizer.vocabulary import BYTE_ALPHABET, byte_level_bytes

TEXTS = [makers.shipped_text("english")[n : n + 400] for n in range(0, 3200, 400)]


def test_counts_are_those_of_the_remembered_texts() -> None:
    sampler = Sampler(600, kept=2)
    for text in TEXTS[:5]:
        sampler.push([text])
    split = sampler._split.pre_tokenize_str
    wanted: Counter[str] = Counter()
    for word, _ in split(TEXTS[3]) + split(TEXTS[4]):
        wanted.update(word[a:b] for a in range(len(word)) for b in range(a + 1, min(a + LONGEST, len(word)) + 1))
    found = {part: int(sampler._count[slot]) for part, slot in sampler._slot_of.items() if sampler._count[slot]}
    assert found == wanted


def test_forgotten_substrings_take_no_memory() -> None:
    sampler = Sampler(600, kept=1)
    for _ in range(3):
        for text in TEXTS:
            sampler.push([text])
    assert len(sampler._slot_of) <= 3 * np.count_nonzero(sampler._count)


def test_without_noise_the_largest_weights_are_chosen() -> None:
    sampler = Sampler(SMALLEST + 50, noise=(0.0, 0.0))
    sampler.push(TEXTS)
    tokens = sampler.sample(0).tokens
    weight = {part: sampler._count[slot] * len(part) for part, slot in sampler._slot_of.items()}
    best = sorted(weight.values(), reverse=True)[50]
    assert {part for part, value in weight.items() if value > best} <= set(tokens)


def test_a_vocabulary() -> None:
    sampler = Sampler(700)
    sampler.push(TEXTS)
    drawn = sampler.sample(3)
    assert 700 - SMALLEST <= len(drawn.tokens) <= 700
    assert len(set(drawn.tokens)) == len(drawn.tokens)
    assert set(BYTE_ALPHABET) <= set(drawn.tokens)
    assert "Ġ" * 8 in drawn.tokens
    assert max(map(len, drawn.tokens)) <= LONGEST + 1
    assert (np.diff(drawn.scores) <= 0).all()
    text = "A new text: 12 naïve 漢字\n\tfor i in range(3):"
    ids = drawn.encode([text])[0]
    assert b"".join(byte_level_bytes(drawn.tokens[n]) for n in ids).decode() == text


def test_samples_depend_on_step_and_seed_and_not_on_earlier_texts() -> None:
    one, other, more = Sampler(700, kept=4), Sampler(700, kept=4), Sampler(700, kept=4, seed=1)
    for text in TEXTS:
        one.push([text])
    for text in TEXTS[4:]:  # a run that resumes counts only what is remembered
        other.push([text])
        more.push([text])
    first, again = one.sample(9), other.sample(9)
    assert list(first.tokens) == list(again.tokens)
    np.testing.assert_array_equal(first.scores, again.scores)
    assert list(first.tokens) != list(one.sample(10).tokens)
    assert list(first.tokens) != list(more.sample(9).tokens)


def test_noise_is_normal() -> None:
    sampler = Sampler(700, noise=(1.0, 0.0))
    sampler.push([makers.shipped_text("german")])
    from tokswap.hypernet.sampling import _normal

    draw = _normal(sampler._id, 12345)
    assert len(draw) > 3000
    assert abs(draw.mean()) < 0.05
    assert abs(draw.std() - 1.0) < 0.05
    assert len(np.unique(draw)) > 0.99 * len(draw)


# Texts.


def test_every_text_comes_once_per_epoch(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"line {n}\n" for n in range(100)), "utf-8")
    texts = Texts.read([path], 30, seed=0)
    assert "".join(texts.pieces) == path.read_text("utf-8")
    assert max(map(len, texts.pieces)) <= 30
    count = len(texts.pieces)
    seen = [piece for step in range(count) for piece in texts.batch(step, 2)]
    assert Counter(seen[:count]) == Counter(seen[count:]) == Counter(texts.pieces)
    assert seen[:count] != seen[count:]
    assert texts.batch(5, 2) == Texts.read([path], 30, seed=0).batch(5, 2)


def test_texts_end_after_lines_and_are_not_short(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("ab\n" + "c" * 20 + "\n" + "d" * 40, "utf-8")
    assert Texts.read([path], 30, seed=0).pieces == ["ab\n" + "c" * 20 + "\n", "d" * 30, "d" * 10]
    path.write_text("ab\n" + "c" * 40, "utf-8")
    assert Texts.read([path], 30, seed=0).pieces == ["ab\n" + "c" * 27, "c" * 13]


def test_records_are_read_and_not_their_json(tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text('{"text": "a ferry", "id": 1}\n{"text": "a bridge", "id": 2}\n', "utf-8")
    assert Texts.read([path], 30, seed=0).pieces == ["a ferry", "a bridge"]
    with pytest.raises(InputError) as caught:
        Texts.read([path], 30, seed=0, key="body")
    assert caught.value.code == "missing-field"


@pytest.mark.parametrize(
    ("content", "code"), [(b"\xff\xfe\x00", "bad-text"), (b" \n", "empty-text"), (None, "bad-text")]
)
def test_bad_texts(tmp_path: Path, content: bytes | None, code: str) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        Texts.read([path], 30, seed=0)
    assert caught.value.code == code
