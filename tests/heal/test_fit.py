from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import makers
import numpy as np
import pytest
from makers import shipped_text

from tokswap.errors import UsageError
from tokswap.evaluation.models import load_model
from tokswap.heal import fit as fitting
from tokswap.heal.calibration import Calibrated, Calibration, Matrices, cost
from tokswap.heal.passages import read_passages
from tokswap.tokenizer.tokenizer import read_tokenizer

Make = Callable[..., Path]
TEXT = shipped_text("english") + shipped_text("german")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text((TEXT * 10)[:10_000], encoding="utf-8")
    return path


def test_a_worse_result_of_a_small_text_is_not_kept(model_of: Make) -> None:
    """Even then a worse result is not kept."""
    folder = model_of("llama", vocab_size=640)
    model, _ = load_model(folder)
    rows = model.get_input_embeddings().weight.detach().numpy().copy()
    head = model.get_output_embeddings().weight.detach().numpy().copy()
    passages = read_passages(sorted(makers.TEXTS.glob("*.txt")), read_tokenizer(folder))[:4]
    calibrated = fitting.fit(
        model, Matrices(rows, head), passages, [], Calibration(tokens=2000, rate=20.0, map_rate=1.0)
    )
    assert calibrated.matrices is None
    assert calibrated.notes()


def test_a_long_text_is_trained_on_in_part(model_of: Make, text: Path) -> None:
    folder = model_of("llama-tied", vocab_size=640)
    model, _ = load_model(folder)
    rows = model.get_input_embeddings().weight.detach().numpy().copy()
    passages = read_passages([text], read_tokenizer(folder))
    calibrated = fitting.fit(model, Matrices(rows), passages, [], Calibration(tokens=600))
    assert isinstance(calibrated, Calibrated)
    assert calibrated.history["tokens_trained"] < 1300 < calibrated.history["tokens"]


def test_the_cost_is_bounded_whatever_the_text() -> None:
    settings = Calibration()
    assert cost(settings, 10_000_000, 100, 10) == cost(settings, 10**9, 100, 10)
    assert cost(settings, 1000, 100, 10) < cost(settings, 10_000, 100, 10)


@pytest.mark.parametrize("wrong", [{"tokens": 0}, {"epochs": 0}, {"rate": -1.0}, {"held_out": 1}])
def test_settings_have_bounds(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError) as caught:
        Calibration(**wrong)
    assert caught.value.code == "bad-setting"


def test_passages_are_as_good_unless_they_are_clearly_worse() -> None:
    before = np.array([10.0, 12.0, 14.0, 16.0])
    assert fitting._as_good(before, before)
    assert fitting._as_good(before, before - 1)
    assert fitting._as_good(before, before + np.array([1.0, -1.0, 1.0, -0.5]))  # within two standard errors
    assert not fitting._as_good(before, before + np.array([1.0, 1.1, 0.9, 1.0]))
    assert not fitting._as_good(before, np.array([1.0, 1.0, np.nan, 1.0]))
    assert not fitting._as_good(before[:1], before[:1] + 0.1)
