from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers import copy_model, shipped_text

import tokswap
from tokswap.checkpoint.loaded import Loaded
from tokswap.errors import InputError, UsageError
from tokswap.evaluation import evaluate
from tokswap.evaluation.bootstrap import WHOLE_FILES
from tokswap.evaluation.evaluate import evaluate_models
from tokswap.evaluation.losses import bits_per_byte, token_losses
from tokswap.evaluation.models import load_model
from tokswap.evaluation.results import Evaluation
from tokswap.report.record import REPORT_NAME

Make = Callable[..., Path]

TEXTS = {"english": shipped_text("english")[:1500], "code": shipped_text("code")[:1100]}


@pytest.fixture(scope="module")
def result(pair: tuple[Path, Path]) -> Evaluation:
    source, out = pair
    return evaluate_models([str(out)], TEXTS, against=str(source), window=64, overlap=16, tokens=4)


def test_figures_are_those_of_each_model_alone(pair: tuple[Path, Path], result: Evaluation) -> None:
    assert [(judged.model, judged.is_source) for judged in result.models] == [
        (str(pair[0]), True),
        (str(pair[1]), False),
    ]
    for folder, judged in zip(pair, result.models, strict=True):
        loaded = load_model(folder)
        for name, text in TEXTS.items():
            alone = bits_per_byte(*loaded, text, window=64, overlap=16)
            score = judged.score.only(name)
            assert score.bits_per_byte == pytest.approx(alone.bits_per_byte)
            assert (score.bytes, score.tokens) == (alone.bytes, alone.tokens)
    source, own = (judged.score for judged in result.models)
    assert source.excess is None
    assert own.excess == pytest.approx(own.bits_per_byte - source.bits_per_byte)
    assert own.bytes == source.bytes == sum(len(text.encode()) for text in TEXTS.values())


def test_the_initialised_rows_are_those_of_the_report(pair: tuple[Path, Path], result: Evaluation) -> None:
    tokens = json.loads((pair[1] / REPORT_NAME).read_text())["tokens"]
    initialised = {n for n, reason in enumerate(tokens["reason"]) if reason == tokens["reasons"]["missing"]}
    model, tokenizer = load_model(pair[1])
    found = [token_losses(model, tokenizer, text, window=64, overlap=16) for text in TEXTS.values()]
    bits = sum(losses.bits[[int(token) in initialised for token in losses.ids]].sum() for losses in found)
    score = result.models[1].score
    assert {part.kind: part.bits for part in score.token_parts}["missing"] == pytest.approx(bits)
    assert bits > 0


def test_parts_add_up(result: Evaluation) -> None:
    whole = result.as_dict()["models"][1]
    for figures in (whole["all"], *whole["texts"].values()):
        for parts in ("parts", "token_parts"):
            assert sum(part["bits_per_byte"] for part in figures[parts]) == pytest.approx(figures["bits_per_byte"])
            assert sum(part["share_of_bytes"] for part in figures[parts]) == pytest.approx(1)
        assert sum(part["excess"] for part in figures["parts"]) == pytest.approx(figures["excess"])
    assert len(whole["all"]["costliest"]) == len(whole["all"]["costliest_excess"]) == 10
    worst = [piece["bits_per_byte"] for piece in whole["all"]["costliest"]]
    assert worst == sorted(worst, reverse=True)


def test_without_a_report_the_source_tells_what_is_missing(
    pair: tuple[Path, Path], result: Evaluation, tmp_path: Path
) -> None:
    bare = copy_model(pair[1], tmp_path / "bare")
    (bare / REPORT_NAME).unlink()
    again = evaluate_models([str(bare)], TEXTS, against=str(pair[0]), window=64, overlap=16, tokens=0)
    assert again.models[1].score.parts == result.models[1].score.parts
    alone = evaluate_models([str(bare)], TEXTS, window=64, overlap=16, tokens=0)
    assert alone.models[0].score.parts == []
    assert alone.models[0].score.excess is None
    assert len(alone.models[0].score.costliest) == 10


def test_a_model_against_itself(pair: tuple[Path, Path], tmp_path: Path) -> None:
    twin = copy_model(pair[0], tmp_path / "twin")
    score = evaluate_models([str(twin)], TEXTS, against=str(pair[0]), tokens=0).models[1].score
    assert score.excess == 0
    assert score.excess_interval == (0, 0)
    assert [part.kind for part in score.parts if part.tokens] == ["alike"]
    low, high = score.interval or (0, 0)
    assert low < score.bits_per_byte < high
    assert [judged.model for judged in evaluate_models([str(twin), str(twin)], TEXTS, tokens=0).models] == [str(twin)]


def test_all_models_are_scored_on_the_same_bytes(model_of: Make) -> None:
    """One reads the first character, one predicts it: it counts for neither."""
    plain, led = (model_of("llama", vocab_size=640, adds_bos=flag) for flag in (False, True))
    text = {"text": TEXTS["english"]}
    for order in ([str(plain), str(led)], [str(led), str(plain)]):
        models = evaluate_models(order, text, tokens=0).models
        assert models[0].score.bytes == models[1].score.bytes < len(TEXTS["english"])
    assert evaluate_models([str(led)], text, tokens=0).models[0].score.bytes == len(TEXTS["english"])


def test_intervals_hold_the_figure_and_follow_the_seed(pair: tuple[Path, Path], result: Evaluation) -> None:
    score = result.models[1].score
    assert score.interval is not None
    assert score.excess_interval is not None
    assert score.interval[0] < score.bits_per_byte < score.interval[1]
    assert score.excess_interval[0] < (score.excess or 0) < score.excess_interval[1]
    other = evaluate_models([str(pair[1])], TEXTS, against=str(pair[0]), window=64, overlap=16, tokens=0, seed=1)
    assert other.models[1].score.bits == score.bits
    assert other.models[1].score.interval != score.interval


def test_many_texts_are_units_themselves(pair: tuple[Path, Path]) -> None:
    line = shipped_text("english")
    texts = {str(n): line[40 * n : 40 * n + 60] for n in range(WHOLE_FILES)}
    result = evaluate_models([str(pair[0])], texts, tokens=0)
    assert result.units.kind == "texts"
    assert result.as_dict()["units"]["count"] == dict.fromkeys(texts, 1)
    score = result.models[0].score
    assert score.interval is not None
    assert score.only("0").interval is None


def test_a_text_that_takes_many_more_tokens_is_noted(model_of: Make, tmp_path: Path) -> None:
    source = model_of("llama", vocab_size=1500)
    out = tmp_path / "small"
    tokswap.transplant_tokenizer(str(source), str(model_of("gpt2", vocab_size=320)), init="subword", out=out)
    (note,) = evaluate_models([str(out)], {"mine": TEXTS["english"]}, against=str(source), tokens=0).models[1].notes
    assert note.startswith("mine takes ")
    back = evaluate_models([str(source)], {"mine": TEXTS["english"]}, against=str(out), tokens=0)
    assert back.models[1].notes == []


def test_samples(pair: tuple[Path, Path], result: Evaluation) -> None:
    from tokswap.evaluation.continuations import greedy
    from tokswap.tokenizer.probes import PROMPTS

    loaded = load_model(pair[1])
    assert result.models[1].samples == {prompt: greedy(*loaded, prompt, 4) for prompt in PROMPTS}


def test_one_model_in_memory_at_a_time(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Any] = []

    def watched(folder: Path, **options: Any) -> Any:
        assert all(model() is None for model in loaded), "the last model is still there"
        model, tokenizer = load_model(folder, **options)
        loaded.append(weakref.ref(model))
        return model, tokenizer

    monkeypatch.setattr(evaluate, "load_model", watched)
    evaluate_models([str(pair[1])], {"text": "A short text of no importance."}, against=str(pair[0]), tokens=2)
    assert len(loaded) == 2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype: str, pair: tuple[Path, Path], result: Evaluation) -> None:
    half = evaluate_models([str(pair[0])], TEXTS, dtype=dtype, window=64, overlap=16, tokens=0).models[0].score
    assert half.bits_per_byte == pytest.approx(result.models[0].score.bits_per_byte, rel=0.02)


def test_what_cannot_be_evaluated(pair: tuple[Path, Path], model_of: Make, tmp_path: Path) -> None:
    source = str(pair[0])

    def code(kind: type[Exception], *args: Any, **options: Any) -> tuple[str, dict[str, str]]:
        with pytest.raises(kind) as caught:
            evaluate_models(*args, tokens=0, **options)
        return caught.value.code, caught.value.where  # type: ignore[attr-defined]

    assert code(UsageError, [source], TEXTS, device="no-such-device")[0] == "bad-device"
    assert code(UsageError, [source], TEXTS, window=4, overlap=8)[0] == "bad-window"
    assert code(InputError, ["./nowhere"], TEXTS)[0] == "unknown-model"
    assert code(InputError, [source], {})[0] == "empty-text"
    assert code(UsageError, [], TEXTS)[0] == "bad-model"
    loaded = load_model(pair[0])
    assert code(InputError, [(loaded[0].to("meta"), loaded[1])], TEXTS)[0] == "not-loaded"
    for use in (tokswap.generate_text, lambda pair, text: token_losses(*pair, text)):
        with pytest.raises(InputError, match="not in memory"):
            use(loaded, "a text")
    assert code(InputError, [str(model_of("bert"))], TEXTS)[0] == "not-causal"
    short = str(model_of("llama", vocab_size=640))
    assert code(InputError, [short], {"good": "a good text", "bad": "e"}) == ("empty-text", {"text": "bad"})
    damaged = copy_model(pair[1], tmp_path / "damaged")
    (damaged / REPORT_NAME).write_text('{"tokens": {"source_of": [1, "x"]}}')
    assert code(InputError, [str(damaged)], TEXTS)[0] == "bad-report"


def test_the_document_is_plain_data(result: Evaluation) -> None:
    document = json.loads(json.dumps(result.as_dict()))
    assert document["units"]["kind"] == "paragraphs"
    assert document["models"][0]["is_source"]
    assert not any(isinstance(value, np.generic) for value in document["models"][1]["all"].values())


def test_loaded_models_are_used_as_they_are(pair: tuple[Path, Path], result: Evaluation) -> None:
    """Their names say where they are from, and two of one name are told apart."""
    source, own = (load_model(folder) for folder in pair)
    own[0].train()
    own[0].config._name_or_path = own[0].name_or_path = source[0].name_or_path
    found = evaluate_models([Loaded(*own), own], TEXTS, against=source, window=64, overlap=16, tokens=4)
    name = source[0].name_or_path
    assert [(judged.model, judged.is_source) for judged in found.models] == [(name, True), (f"{name} (2)", False)]
    assert found.against == name
    for mine, theirs in zip(found.models, result.models, strict=True):
        assert mine.score.bits == theirs.score.bits
        assert mine.samples == theirs.samples
        assert mine.score.parts == theirs.score.parts, "by comparison of the vocabularies"
    assert own[0].training


def test_a_loaded_model_beside_one_on_disk(pair: tuple[Path, Path], result: Evaluation) -> None:
    loaded = load_model(pair[0])
    found = evaluate_models([pair[1], loaded], TEXTS, against=loaded, window=64, overlap=16, tokens=0)
    assert [judged.is_source for judged in found.models] == [True, False]
    assert found.models[1].score.parts == result.models[1].score.parts
    loaded[0].name_or_path = loaded[0].config._name_or_path = ""
    assert evaluate_models([loaded], TEXTS, tokens=0).models[0].model == "loaded model"


def test_a_loaded_encoder_is_refused(model_of: Make) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    folder = model_of("bert")
    model = AutoModelForMaskedLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with pytest.raises(InputError) as caught:
        evaluate_models([model], TEXTS)
    assert caught.value.code == "not-causal"


def test_a_result_is_readable(pair: tuple[Path, Path], result: Evaluation) -> None:
    score = result.models[1].score
    lines = repr(result).splitlines()
    assert lines[0] == f"Evaluation on 2 texts, {score.bytes:,} bytes"
    assert lines[1].split() == ["bits", "per", "byte", "excess"]
    assert lines[2].split() == [str(pair[0]), "(source)", f"{result.models[0].score.bits_per_byte:.3f}"]
    assert lines[3].split() == [str(pair[1]), f"{score.bits_per_byte:.3f}", f"{score.excess:+.3f}"]
    assert f"<td>{score.excess:+.3f}</td>" in result._repr_html_()
    assert len(repr(result.models[1])) < 1000
