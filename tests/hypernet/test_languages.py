"""Training with languages: steps take them in turn, the network is told which, and a run resumes as it would go on."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import makers
import numpy as np
import pytest
import torch
from commands import run
from safetensors.torch import load_file

from tokswap.errors import InputError, UsageError
from tokswap.hypernet import load_hypernet
from tokswap.hypernet.prepare import prepare
from tokswap.hypernet.settings import TrainSettings
from tokswap.hypernet.train import train

SMALL: dict[str, Any] = {
    **{"steps": 5, "identity_steps": 3, "batch": 4, "length": 24, "identity_batch": 32, "vocabulary": 600},
    **{"negatives": 40, "queue": 3, "hidden": 16, "layers": 1, "save_every": 4, "rate": 1e-3},
}


@pytest.fixture(scope="module")
def base(model_of: Callable[..., Path]) -> Path:
    return model_of("llama-tied")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[Path]]:
    """Return texts of two languages that share no letter."""
    folder = tmp_path_factory.mktemp("texts")
    draw = random.Random(0)
    for letters in ("abc", "xyz"):
        lines = [" ".join("".join(draw.choices(letters, k=draw.randint(2, 7))) for _ in range(8)) for _ in range(90)]
        (folder / f"{letters}.txt").write_text("\n".join(lines))
    return {letters: [folder / f"{letters}.txt"] for letters in ("abc", "xyz")}


@pytest.fixture(scope="module")
def trained(base: Path, texts: Mapping[str, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(str(base), texts, tmp_path_factory.mktemp("trained") / "out", TrainSettings(**SMALL))


def test_steps_take_languages_in_turn(base: Path, texts: Mapping[str, list[Path]]) -> None:
    trainer = prepare(str(base), texts, TrainSettings(**SMALL))
    token_bytes = trainer.base.tokenizer.vocabulary.token_bytes
    trainer.batches.warm_up(0)
    for step, letters in enumerate(["abc", "xyz"] * 2):
        batch = trainer.batches.main(step)
        tokens = [b"".join(token_bytes[n] for n in pieces).decode("latin-1") for pieces in batch.pieces]
        read = {tokens[n] for n in batch.ids.ravel() if 0 <= n < len(tokens)}
        sampled = {token for token in tokens if len(token.strip()) > 1}
        assert len(read & sampled) > 20
        assert set("".join(read)) <= {*letters, " ", "\n"}
        assert set("".join(sampled)) <= {*letters, " "}, "the tokenizer is one of the same language"


def test_the_network_is_told_the_language(base: Path, texts: Mapping[str, list[Path]]) -> None:
    trainer = prepare(str(base), texts, TrainSettings(**SMALL))
    told: list[int | None] = []
    trainer.network.register_forward_pre_hook(lambda _, given: told.append(given[2]))
    trainer.batches.warm_up(0)
    for step in range(SMALL["identity_steps"] + SMALL["steps"]):
        trainer.compute(step)
    assert told == [0, 1, 0, 0, 1, 0, 1, 0], "three steps of the first stage, five of the main stage"


def test_tokens_get_the_rows_of_their_language(base: Path, trained: Path, tmp_path: Path) -> None:
    config = load_hypernet(trained).config
    assert (config.languages, config.n_langs, config.hn_embed_lang_id) == (("abc", "xyz"), 2, True)
    tokenizer = makers.make_tokenizer("unigram", tmp_path / "tokenizer", vocab_size=400)
    transplant = ["transplant", "--model", base, "--tokenizer", tokenizer, "--init", "zett", "--set", f"path={trained}"]
    rows = []
    for code in ("abc", "xyz"):
        run(*transplant, "--set", f"lang={code}", "--out", tmp_path / code)
        rows.append(load_file(tmp_path / code / "model.safetensors")["model.embed_tokens.weight"])
    assert not torch.equal(*rows)
    assert "needs the language" in run(*transplant, "--out", tmp_path / "none", status=2).output


def test_it_resumes_where_it_was(base: Path, texts: Mapping[str, list[Path]], trained: Path, tmp_path: Path) -> None:
    """The checkpoint of step 4 is one step into the main stage: the languages have had different numbers of turns."""

    class Stopped(Exception):
        pass

    def stop(step: int) -> None:
        if step == 5:
            raise Stopped

    settings = TrainSettings(**SMALL)
    with pytest.raises(Stopped):
        train(str(base), texts, tmp_path / "out", settings, each_step=stop)
    backwards = dict(reversed(texts.items()))
    with pytest.raises(UsageError, match="texts"):
        train(str(base), backwards, tmp_path / "out", settings, resume=True)
    train(str(base), texts, tmp_path / "out", settings, resume=True)
    weights = [load_hypernet(folder).network.state_dict() for folder in (trained, tmp_path / "out")]
    for name, value in weights[0].items():
        np.testing.assert_array_equal(value, weights[1][name], err_msg=name)


def test_the_command(base: Path, texts: Mapping[str, list[Path]], tmp_path: Path) -> None:
    """Files of one language may be several, in any order."""
    more = tmp_path / "more.txt"
    more.write_text("acab bac\n" * 50)
    given = [("abc", texts["abc"][0]), ("xyz", texts["xyz"][0]), ("abc", more)]
    words = [word for code, path in given for word in ("--lang", code, path)]
    sizes = [word for key, value in SMALL.items() for word in ("--" + key.replace("_", "-"), value)]
    command = ["hypernet", "train", "--model", base, *sizes, "--out", tmp_path / "out"]
    run(*command, *words)
    began = json.loads((tmp_path / "out" / "training" / "settings.json").read_text())
    assert [[code, len(files)] for code, files in began["texts"]] == [["abc", 2], ["xyz", 1]]
    assert "languages   abc xyz" in run("hypernet", "info", tmp_path / "out").output
    assert "either" in run(*command, status=2).output
    assert "either" in run(*command, *words, "--text", more, status=2).output


@pytest.mark.parametrize("code", ["", "de en", "3"])
def test_codes_that_cannot_be_named(base: Path, texts: Mapping[str, list[Path]], code: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        train(str(base), {**texts, code: texts["abc"]}, tmp_path / "out", TrainSettings(**SMALL))
    assert caught.value.code == "bad-setting"
    assert not (tmp_path / "out").exists()


def test_a_language_without_text(base: Path, texts: Mapping[str, list[Path]], tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n")
    with pytest.raises(InputError, match=r"empty\.txt") as caught:
        train(str(base), {**texts, "de": [empty]}, tmp_path / "out", TrainSettings(**SMALL))
    assert caught.value.code == "empty-text"
