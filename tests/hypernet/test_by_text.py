"""Training by text: steps take the texts in turn, and a run resumes as it would have gone on."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run

from tokswap.errors import InputError, UsageError
from tokswap.hypernet import load_hypernet
from tokswap.hypernet.prepare import prepare
from tokswap.hypernet.settings import TrainSettings
from tokswap.hypernet.train import train

SMALL: dict[str, Any] = {
    **{"steps": 5, "identity_steps": 3, "batch": 4, "length": 24, "identity_batch": 32, "vocabulary": 600},
    **{"negatives": 40, "queue": 3, "hidden": 16, "layers": 1, "save_every": 4, "rate": 1e-3},
}
SETTINGS = TrainSettings(**SMALL, by_text=True)
LETTERS = ("abc", "xyz")


@pytest.fixture(scope="module")
def base(model_of: Callable[..., Path]) -> Path:
    return model_of("llama-tied")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return two texts that share no letter."""
    folder, draw = tmp_path_factory.mktemp("texts"), random.Random(0)
    for letters in LETTERS:
        lines = [" ".join("".join(draw.choices(letters, k=draw.randint(2, 7))) for _ in range(8)) for _ in range(90)]
        (folder / f"{letters}.txt").write_text("\n".join(lines))
    return [folder / f"{letters}.txt" for letters in LETTERS]


def test_steps_take_texts_in_turn(base: Path, texts: list[Path]) -> None:
    trainer = prepare(str(base), texts, SETTINGS)
    token_bytes = trainer.base.tokenizer.vocabulary.token_bytes
    trainer.batches.warm_up(0)
    for step, letters in enumerate(LETTERS * 2):
        batch = trainer.batches.main(step)
        tokens = [b"".join(token_bytes[n] for n in pieces).decode("latin-1") for pieces in batch.pieces]
        read = {tokens[n] for n in batch.ids.ravel() if 0 <= n < len(tokens)}
        sampled = {token for token in tokens if len(token.strip()) > 1}
        assert len(read & sampled) > 20
        assert set("".join(read)) <= {*letters, " ", "\n"}
        assert set("".join(sampled)) <= {*letters, " "}, "the tokenizer is one of the same text"


def test_it_resumes_where_it_was(base: Path, texts: list[Path], tmp_path: Path) -> None:
    """The checkpoint of step 4 is one step into the main stage: the texts have had different numbers of turns."""

    class Stopped(Exception):
        pass

    def stop(step: int) -> None:
        if step == 5:
            raise Stopped

    whole = train(str(base), texts, tmp_path / "whole", SETTINGS)
    with pytest.raises(Stopped):
        train(str(base), texts, tmp_path / "out", SETTINGS, each_step=stop)
    with pytest.raises(UsageError, match="texts"):
        train(str(base), texts[::-1], tmp_path / "out", SETTINGS, resume=True)
    train(str(base), texts, tmp_path / "out", SETTINGS, resume=True)
    weights = [load_hypernet(folder).network.state_dict() for folder in (whole, tmp_path / "out")]
    for name, value in weights[0].items():
        np.testing.assert_array_equal(value, weights[1][name], err_msg=name)


def test_the_command(base: Path, texts: list[Path], tmp_path: Path) -> None:
    sizes = [word for key, value in SMALL.items() for word in ("--" + key.replace("_", "-"), value)]
    command = ["hypernet", "train", "--model", base, *sizes, "--by-text", "--out", tmp_path / "out", "--text", texts[0]]
    assert "there is one" in run(*command, status=2).output
    assert not (tmp_path / "out").exists()
    run(*command, "--text", texts[1])
    load_hypernet(tmp_path / "out")


def test_every_text_must_have_some(base: Path, texts: list[Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n")
    with pytest.raises(InputError, match=r"empty\.txt") as caught:
        train(str(base), [*texts, empty], tmp_path / "out", SETTINGS)
    assert caught.value.code == "empty-text"
