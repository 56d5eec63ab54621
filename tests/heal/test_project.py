from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from makers import FAMILIES, shipped_text

from tokswap.heal.heads import HeadForm
from tokswap.heal.logits import Logits
from tokswap.heal.loss import FusedLoss, Wanted, Weights, plain_loss
from tokswap.heal.project import (
    LEAST,
    Tokenized,
    crossing_rates,
    packed,
    project,
    teacher_pieces,
    tokenized,
)
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer

Make = Callable[..., Path]

# WordPiece and Unigram keep no spaces but single ones between words, and the first no capitals.
WORDS = " ".join(word.lower() for word in shipped_text("english").split() if word.isalpha() and word.isascii())[:700]
CODE = shipped_text("code")[:1500]


def split(tokenizer: Tokenizer, text: str) -> Tokenized:
    found = tokenized(tokenizer, text, tokenizer.encode(text))
    assert found is not None
    return found


def words(*tokenizers: Tokenizer) -> str:
    """The words that all of them can spell: WordPiece lacks some letters inside a word."""

    def spelt(word: str) -> bool:
        return all(tokenized(one, word, one.encode(word)) is not None for one in tokenizers)

    return " ".join(filter(spelt, WORDS.split()))


def random_top(count: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Distributions over the whole vocabulary, the likeliest token first; some tokens have most of it."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=(count, size)) * 3
    probabilities = np.exp(scores - scores.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    ids = np.argsort(-probabilities, axis=1).astype(np.int32)
    return ids, np.take_along_axis(probabilities, ids, 1).astype(np.float32)


def enumerated(
    teacher: Tokenized,
    student: Tokenized,
    top: tuple[np.ndarray, np.ndarray],
    pieces: list[list[int]],
    rates: np.ndarray,
) -> list[dict[int, float] | None]:
    """The definition, without haste: for each student token every teacher token is tried."""
    result: list[dict[int, float] | None] = []
    common = sorted(set(teacher.bounds.tolist()) & set(student.bounds[:-1].tolist()))
    for i, byte in enumerate(student.bounds[:-1].tolist()):
        before = [edge for edge in common if edge <= byte]
        if not before:
            result.append(None)
            continue
        j = int(np.flatnonzero(teacher.bounds == before[-1])[-1])
        first = int(np.flatnonzero(student.bounds[: i + 1] == before[-1])[-1])
        if j >= len(teacher.ids) or student.bounds[i + 1] > teacher.bounds[j + 1]:
            result.append(None)
            continue
        so_far = student.ids[first:i].tolist()
        agree = [
            (pieces[token], probability, probability * (1 - rates[token]))
            for token, probability in zip(top[0][j].tolist(), top[1][j].tolist(), strict=True)
            if probability > 0 and len(pieces[token]) > len(so_far) and pieces[token][: len(so_far)] == so_far
        ]
        whole, mass, left = top[1][j].sum(), sum(one[1] for one in agree), sum(one[2] for one in agree)
        if mass < LEAST * whole or left <= 0:
            result.append(None)
            continue
        target: dict[int, float] = {}
        for ids, _, kept in agree:
            target[ids[len(so_far)]] = target.get(ids[len(so_far)], 0.0) + kept * whole / left
        result.append(target)
    return result


@pytest.mark.parametrize("teacher_family", FAMILIES)
@pytest.mark.parametrize("student_family", FAMILIES)
def test_the_projection_is_its_definition(teacher_family: str, student_family: str, tokenizer_of: Make) -> None:
    teacher = read_tokenizer(tokenizer_of(teacher_family, vocab_size=600))
    student = read_tokenizer(tokenizer_of(student_family, vocab_size=400, seed_text=[shipped_text("english")]))
    texts = [words(teacher, student)] if {"wordpiece", "unigram"} & {teacher_family, student_family} else [WORDS, CODE]
    pieces, size = teacher_pieces(teacher, student), len(teacher.vocabulary)
    pairs = [(split(teacher, text), split(student, text)) for text in texts]
    rates = crossing_rates(pairs, size)
    for seed, (one, other) in enumerate(pairs):
        top = random_top(len(one.ids), size, seed)
        found = project(one, other, top, packed(pieces, rates), keep=len(student.vocabulary))
        wanted = enumerated(one, other, top, pieces, rates)
        assert found.projected.tolist() == [target is not None for target in wanted]
        assert found.projected.any()
        for n, target in enumerate(wanted):
            target = target if target is not None else {int(other.ids[n]): 1.0}
            mine = {
                token: p for token, p in zip(found.ids[n].tolist(), found.probabilities[n].tolist(), strict=True) if p
            }
            assert mine == pytest.approx(target, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_tokenizers_get_the_teachers_distribution(family: str, tokenizer_of: Make) -> None:
    tokenizer = read_tokenizer(tokenizer_of(family))
    text = words(tokenizer) if family in ("wordpiece", "unigram") else CODE
    side, pieces, size = split(tokenizer, text), teacher_pieces(tokenizer, tokenizer), len(tokenizer.vocabulary)
    ids, probabilities = random_top(len(side.ids), size, 0)
    own = np.array([pieces[token] == [token] for token in range(size)])
    assert own.mean() > 0.5
    probabilities = np.where(own[ids], probabilities, 0)
    rates = crossing_rates([(side, side)], size)
    assert not rates.any()
    found = project(side, side, (ids, probabilities), packed(pieces, rates), keep=size)
    assert found.projected.all()
    whole = np.zeros((len(side.ids), size))
    for row, ids_of, values in zip(whole, found.ids, found.probabilities, strict=True):
        row[ids_of[ids_of >= 0]] = values[ids_of >= 0]
    wanted = np.zeros_like(whole)
    np.put_along_axis(wanted, ids, probabilities, 1)
    assert whole == pytest.approx(wanted, abs=1e-5)


def test_a_student_token_that_runs_over_the_end_of_a_teacher_token() -> None:
    """Bytes: teacher `ab|cd`, student `a|bcd`. The second student token crosses the end of the first teacher token."""
    teacher = Tokenized(np.array([0, 1], np.int32), np.array([0, 2, 4], np.int32))
    student = Tokenized(np.array([0, 1], np.int32), np.array([0, 1, 4], np.int32))
    pieces = [[0, 2], [3]]  # a, b; cd
    top = (np.array([[0, 1], [1, 0]], np.int32), np.array([[0.6, 0.3], [0.8, 0.2]], np.float32))
    rates = crossing_rates([(teacher, student)] * 3, 2)
    assert rates.tolist() == [0.75, 0.0]
    found = project(teacher, student, top, packed(pieces, rates), keep=2)
    assert found.projected.tolist() == [True, False]
    assert found.ids.tolist() == [[3, 0], [1, -1]], "the real token where it crosses"
    # A quarter of 0.6 is left beside 0.3; together they are the 0.9 that was read.
    assert found.probabilities == pytest.approx(np.array([[0.6, 0.3], [1.0, 0.0]]), abs=1e-6)


def test_a_tokenizer_that_changes_the_text_is_noticed(tokenizer_of: Make) -> None:
    tokenizer = read_tokenizer(tokenizer_of("wordpiece"))
    assert tokenized(tokenizer, "Some  spaces", tokenizer.encode("Some  spaces")) is None


# The loss.


def wanted(count: int, size: int, keep: int) -> Wanted:
    ids = torch.stack([torch.randperm(size)[:keep] for _ in range(count)])
    return Wanted(torch.randint(size, (count,)), ids, torch.rand(count, keep).softmax(1) * torch.rand(count, 1))


@pytest.mark.parametrize(
    "form", [HeadForm(), HeadForm(softcap=3.0), HeadForm(scale=0.25), HeadForm(bias=torch.linspace(-1, 1, 50))]
)
@pytest.mark.parametrize("block", [7, 1000])
def test_the_fused_loss_is_the_plain_one(form: HeadForm, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokswap.heal.logits.BLOCK_ELEMENTS", block * 20)
    torch.manual_seed(0)
    goal, weights = wanted(20, 50, 5), Weights(0.7, 0.4)
    hidden, head = (torch.randn(n, 8, requires_grad=True) for n in (20, 50))
    fused = FusedLoss.apply(hidden, head, goal, weights, form)
    fused[0].backward()
    gradients = [one.grad.clone() for one in (hidden, head) if one.grad is not None]
    hidden.grad = head.grad = None
    logits = (hidden @ head.T + (form.bias if form.bias is not None else 0)) * form.scale
    if form.softcap is not None:
        logits = (logits / form.softcap).tanh() * form.softcap
    plain = plain_loss(logits, goal, weights)
    plain[0].backward()
    for one, other in zip(fused, plain, strict=True):
        assert one.item() == pytest.approx(other.item(), rel=1e-5)
    for one, tensor in zip(gradients, (hidden, head), strict=True):
        assert tensor.grad is not None
        assert torch.allclose(one, tensor.grad, atol=1e-6)


@pytest.mark.parametrize("top", [0, 4, 50, 60])
@pytest.mark.parametrize("elements", [1, 20 * 7, 20 * 1000])
def test_blocks_of_logits_have_the_sum_and_the_greatest_of_all(
    top: int, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokswap.heal.logits.BLOCK_ELEMENTS", elements)
    torch.manual_seed(0)
    hidden, head, places = torch.randn(20, 8), torch.randn(50, 8), torch.randint(50, (20, 3))
    whole = hidden @ head.T
    found = Logits(hidden, head, HeadForm()).picked(places, top)
    best, ids = whole.topk(min(top, 50), dim=1)
    assert torch.allclose(found.logits, whole.gather(1, places), atol=1e-6)
    assert torch.allclose(found.total, whole.logsumexp(1, keepdim=True), atol=1e-6)
    assert torch.allclose(found.best, best, atol=1e-6)
    assert torch.equal(found.best_ids, ids)


def test_the_kl_divergence_of_equal_distributions_is_zero() -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 9)
    ids = torch.arange(9).expand(6, 9)
    goal = Wanted(torch.zeros(6, dtype=torch.long), ids, logits.softmax(1))
    assert float(plain_loss(logits, goal, Weights(1.0, 0.0))[0]) == pytest.approx(0, abs=1e-5)
    some = Wanted(goal.tokens, ids[:, :4], logits.softmax(1)[:, :4])
    assert float(plain_loss(logits, some, Weights(1.0, 0.0))[0]) == pytest.approx(0, abs=1e-5)
    assert float(plain_loss(logits * 2, some, Weights(1.0, 0.0))[0]) > 0.01
