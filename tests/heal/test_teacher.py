"""What a teacher and the judge read; a reading that was broken off gives the same when it goes on."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from makers import make_model

from tokswap.evaluation.models import load_model
from tokswap.heal import teacher
from tokswap.heal.judge import judge
from tokswap.heal.project import Tokenized
from tokswap.heal.teacher import read_passages
from tokswap.heal.text import Passage


def test_batches_do_not_depend_on_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill in the middle of a batch leaves some of its passages read; the others are read beside them again."""
    model, _ = load_model(make_model("llama", tmp_path / "model", vocab_size=300))
    random = np.random.default_rng(0)
    passages = [random.integers(0, 300, size).astype(np.int32) for size in (9, 40, 12, 31, 25, 18)]
    batches: list[list[int]] = []
    real = teacher.padded

    def noted(some: list[np.ndarray], lead: list[int], device: torch.device) -> object:
        batches.append([len(one) for one in some])
        return real(some, lead, device)

    monkeypatch.setattr(teacher, "padded", noted)
    whole = {one.index: one for one in read_passages(model, passages, [1], top=4, batch=64)}
    assert sorted(whole) == list(range(6))
    first = list(batches)
    assert max(len(one) for one in first) > 1
    for n in range(6):
        batches.clear()
        again = {one.index: one for one in read_passages(model, passages, [1], top=4, batch=64, missing={n})}
        assert n in again
        assert batches == [one for one in first if len(passages[n]) in one], "the batch as before, and no other"
        for index, one in again.items():
            np.testing.assert_array_equal(one.probabilities, whole[index].probabilities)
    assert not list(read_passages(model, passages, [1], top=4, batch=64, missing=()))


@pytest.mark.parametrize("lead", [(), (1,)])
def test_bits_and_bytes_are_those_of_the_predicted_tokens(lead: tuple[int, ...], tmp_path: Path) -> None:
    """Without bos, nothing predicts the first token of a passage: neither its bits nor its bytes count."""
    model, _ = load_model(make_model("llama", tmp_path / "model", vocab_size=300))
    side = Tokenized(np.arange(5, 14, dtype=np.int32), np.arange(10, dtype=np.int32) * 3)
    judged = judge(model, [Passage("text", 27, teacher=side, student=side)], lead)
    ids = torch.tensor([[*lead, *side.ids.tolist()]])
    predicted = ids.shape[1] - 1
    loss = model(ids, labels=ids).loss.item() * predicted / math.log(2)
    assert judged.bits_per_byte == pytest.approx(loss / (3 * predicted), rel=1e-5)
