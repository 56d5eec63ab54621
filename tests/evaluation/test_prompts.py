"""Prompts that cannot be continued, and seeds that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import pytest
from commands import run

import tokswap
from tokswap.ensemble.bytewise.load import load_bytes
from tokswap.ensemble.generate import continue_bytes
from tokswap.errors import UsageError
from tokswap.options.declare import MOST_SEED

Make = Callable[..., Path]
SURROGATES = ("half \ud800", "a byte of the shell \udcff")


@pytest.mark.parametrize("exact", [True, False])
def test_prompts_of_one_model(exact: bool, model_of: Make) -> None:
    model, long = model_of("gpt2"), "word " * 300
    for prompt, code in ((long, "bad-prompt"), ("", "empty-prompt"), *((text, "bad-prompt") for text in SURROGATES)):
        with pytest.raises(UsageError) as caught:
            tokswap.generate_text(model, prompt, exact_prompt=exact)
        assert caught.value.code == code, prompt[:9]
    for text in SURROGATES:
        with pytest.raises(UsageError, match="is not UTF-8"):
            tokswap.generate_text(model, "a", suffix=text, fim_markers=("a", "b", "c"), exact_prompt=exact)
    with pytest.raises(UsageError, match="more than the 128 of the model"):
        tokswap.generate_text(model, "a", tokens=500, exact_prompt=exact)
    with pytest.raises(UsageError, match="`prompt` takes text, not PosixPath"):
        tokswap.generate_text(model, Path("a"), exact_prompt=exact)  # type: ignore[arg-type]
    assert tokswap.generate_text(model_of("llama"), long, tokens=2).tokens == 2, "it computes its positions"


def test_prompts_of_a_byte_mixture(model_of: Make) -> None:
    _, mixture = load_bytes([model_of("gpt2")])
    for text in SURROGATES:
        with pytest.raises(UsageError) as caught:
            continue_bytes(mixture, text)
        assert caught.value.code == "bad-prompt"


def test_prompts_of_an_evaluation(model_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are tried before the texts are read, which can take hours."""
    monkeypatch.setattr("tokswap.evaluation.runs.token_losses", None)
    for prompt, code in (("", "empty-prompt"), ("word " * 300, "bad-prompt"), (SURROGATES[0], "bad-prompt")):
        with pytest.raises(UsageError) as caught:
            tokswap.evaluate_models(str(model_of("gpt2")), {"text": makers.shipped_text("english")}, prompts=[prompt])
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("texts", "words"), [(["a.txt"], "`texts` takes a mapping"), ({"a": Path("a.txt")}, "the text 'a' is a")]
)
def test_texts_are_given_by_name(texts: Any, words: str, model_of: Make) -> None:
    model = str(model_of("llama"))
    for call in (
        lambda: tokswap.evaluate_models([model], texts),
        lambda: tokswap.compare_tokenizers(model, model, texts),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            call()
        assert caught.value.code == "bad-setting"


@pytest.mark.parametrize("seed", [-1, MOST_SEED + 1])
def test_seeds(seed: int, model_of: Make, tmp_path: Path) -> None:
    model = str(model_of("llama"))
    done = run("generate", model, "a", "--sample", "--seed", seed, status=2)
    assert "--seed must be" in done.stderr
    with pytest.raises(UsageError):
        tokswap.plan_transplant(model, model, init="gaussian", seed=seed, out=tmp_path / "out")
