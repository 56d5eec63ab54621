"""Figures of tokenizers, against counts by hand with stock transformers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any

import makers
import numpy as np
import pytest
from transformers import AutoTokenizer

import tokswap
from tokswap.checkpoint.embeddings import EmbeddingSpace
from tokswap.checkpoint.undertrained import indicate
from tokswap.tokenizer.measures import renyi_efficiency
from tokswap.tokenizer.noise import RATE, noisy
from tokswap.tokenizer.tokenizer import read_tokenizer
from tokswap.tokenizer.vocabulary import Kind, Vocabulary

Make = Callable[..., Path]


def test_renyi_of_known_distributions() -> None:
    assert renyi_efficiency(np.array([5, 5, 5, 5]), 4) == pytest.approx(1)
    assert renyi_efficiency(np.array([9, 0, 0, 0]), 4) == 0
    shares = (0.5, 0.3, 0.2)
    expected = log(sum(share**2.5 for share in shares)) / (1 - 2.5) / log(8)
    assert renyi_efficiency(np.array([5, 3, 2, 0, 0, 0, 0, 0]), 8) == pytest.approx(expected)
    assert renyi_efficiency(np.zeros(4, np.int64), 4) == 0


def test_noise_is_small_and_the_same_each_time() -> None:
    text = makers.shipped_text("english") * 5
    assert noisy(text) == noisy(text) != text
    assert noisy(text, rate=0) == text
    same = sum(a == b for a, b in zip(noisy("e" * 20000), "e" * 20000, strict=False))
    assert 1 - same / 20000 == pytest.approx(RATE, abs=0.02)


@pytest.fixture(scope="module")
def facts(tokenizer_of: Make) -> dict[str, Any]:
    parallel = {"en": makers.shipped_text("english"), "de": makers.shipped_text("german")}
    return tokswap.compare_tokenizers(
        tokenizer_of("byte-level"),
        tokenizer_of("sentencepiece", vocab_size=700),
        {"english": makers.shipped_text("english")},
        parallel=parallel,
        terms=["the", "bridge", "Wochenende"],
        every_token=True,
    )


def test_the_figures_are_those_of_a_count_by_hand(tokenizer_of: Make, facts: dict[str, Any]) -> None:
    text, german = makers.shipped_text("english"), makers.shipped_text("german")
    folders = [tokenizer_of("byte-level"), tokenizer_of("sentencepiece", vocab_size=700)]
    for n, tokenizer in enumerate(map(AutoTokenizer.from_pretrained, folders)):

        def ids(text: str, tokenizer: Any = tokenizer) -> list[int]:
            return list(tokenizer.encode(text, add_special_tokens=False))

        counts = Counter(ids(text))
        entropy = log(sum((c / counts.total()) ** 2.5 for c in counts.values())) / (1 - 2.5)
        found = facts["on_texts"]["english"][n]
        assert found["renyi"] == pytest.approx(entropy / log(len(tokenizer)))
        words = Counter("".join(c if c.isalpha() else " " for c in text).split())
        whole = sum(count for word, count in words.items() if len(ids(" " + word)) == 1)
        assert found["whole_words"] == pytest.approx(whole / words.total())
        assert found["noise_growth"] == pytest.approx(len(ids(noisy(text))) / counts.total())
        assert 0.5 < found["noise_kept"] < 1
        assert facts["parity"][n] == {"en": 1, "de": pytest.approx(len(ids(german)) / counts.total())}
        lengths = [len(ids(" " + term)) for term in ("the", "bridge", "Wochenende")]
        assert facts["terms"][n]["tokens_per_term"] == pytest.approx(sum(lengths) / 3)
        assert facts["terms"][n]["single"] == pytest.approx(lengths.count(1) / 3)


def test_tokens_that_do_not_come_out(tokenizer_of: Make, tmp_path: Path, facts: dict[str, Any]) -> None:
    assert facts["tokens"][0]["unreachable"] == 0
    folder = makers.copy_model(tokenizer_of("byte-level"), tmp_path / "a")
    spec = makers.read_json(folder / "tokenizer.json")
    spec["model"]["vocab"] |= {"zqzq": 600, "zqzqzq": 601}  # no merge makes them
    makers.write_json(folder / "tokenizer.json", spec)
    found = tokswap.compare_tokenizers(folder, folder, every_token=True)["tokens"][0]
    assert found == {"unreachable": 2, "unreachable_tokens": ["'zqzq'", "'zqzqzq'"], "ambiguous": 2}


def test_nothing_is_measured_without_a_flag(tokenizer_of: Make) -> None:
    found = tokswap.compare_tokenizers(tokenizer_of("byte-level"), tokenizer_of("byte-level"))
    assert not {"on_texts", "parity", "terms", "tokens"} & found.keys()


def rows(count: int) -> tuple[Vocabulary, np.ndarray, list[int]]:
    """Rows that were trained, and some of text that look like the unused ones: [V, D], and the ids of these."""
    draw = np.random.default_rng(1)
    names = [f"t{n}" for n in range(count)]
    kind = np.full(count, Kind.NORMAL, np.uint8)
    kind[:20] = Kind.UNUSED
    table = draw.standard_normal((count, 24)).astype(np.float32) * 2
    hidden = [33, 70, 71]
    table[[*range(20), *hidden]] = 1 + draw.standard_normal((20 + len(hidden), 24)).astype(np.float32) * 0.02
    return Vocabulary(names, [name.encode() for name in names], kind=kind), table, hidden


@pytest.mark.parametrize("by_distance", [True, False])
def test_undertrained_tokens_are_found(by_distance: bool) -> None:
    vocabulary, table, hidden = rows(400)
    if not by_distance:
        table[[*range(20), *hidden]] *= 0.1
    found = indicate(EmbeddingSpace.from_array(vocabulary, table), by_distance=by_distance)
    assert found["indicator"] == ("distance" if by_distance else "norm")
    assert found["unused"] == 20
    assert {*found["tokens"]} <= {repr(f"t{token}") for token in hidden}
    assert found["count"] >= 2


def test_without_unused_rows_the_norm_tells() -> None:
    vocabulary, table, hidden = rows(400)
    vocabulary.kind[:20] = Kind.NORMAL
    table[:20] *= 2
    table[hidden] *= 0.01
    found = indicate(EmbeddingSpace.from_array(vocabulary, table), by_distance=True)
    assert (found["indicator"], found["count"]) == ("norm", 3)
    assert {*found["tokens"]} == {repr(f"t{token}") for token in hidden}


def test_undertrained_tokens_of_a_model(model_of: Make) -> None:
    for name in ("llama", "llama-tied"):
        found = tokswap.undertrained_tokens(model_of(name, vocab_size=640, rows=650))
        assert found["tied"] == (name == "llama-tied")
        vocabulary = read_tokenizer(model_of(name, vocab_size=640, rows=650)).vocabulary
        unused = (vocabulary.unreachable | (vocabulary.kind == Kind.UNUSED)).sum()
        assert found["unused"] == unused + 10
