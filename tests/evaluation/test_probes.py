"""Probes, against plain transformers and plain arithmetic."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from makers import shipped_text
from tools import Writer

from tokswap.cli import main
from tokswap.errors import InputError, UsageError
from tokswap.evaluation.evaluate import evaluate_models
from tokswap.evaluation.probes import harness
from tokswap.evaluation.probes.ask import PROBES, Asked, ask
from tokswap.evaluation.probes.question import Question
from tokswap.evaluation.probes.scores import ProbeScore
from tokswap.evaluation.results import Evaluation

Make = Callable[..., Path]
TEXT = {"english": shipped_text("english")[:600]}


@pytest.fixture(scope="module")
def result(pair: tuple[Path, Path]) -> Evaluation:
    options: dict[str, Any] = {"tokens": 0, "probes": ["arithmetic", "facts"], "questions": 2}
    return evaluate_models([str(pair[1])], TEXT, against=str(pair[0]), **options)


def loaded(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def test_the_answers_are_right() -> None:
    for question in PROBES["arithmetic"](20, 0):
        last = question.prompt.split("\n")[-1]
        if question.part == "count words":
            assert len(last.removesuffix(" makes").split()) == int(question.answer)
            continue
        a, b = map(int, last.removesuffix(" =").split(" + "))
        assert a + b == int(question.answer)
        assert {str(len(str(a))), str(len(str(b)))} == {question.part.split()[1]}
    for question in PROBES["spelling"](30, 0):
        last = question.prompt.split("\n")[-1]
        if question.part == "spell":
            assert question.answer.replace("-", "") == last.removesuffix(":").split()[-1]
        else:
            letter, word = re.findall(r"letter (\w) in (\w+)", last)[0]
            assert Counter(word)[letter] == int(question.answer)
    for question in PROBES["facts"](14, 0):
        assert len({*question.choices}) == 4
        assert question.answer in question.choices


@pytest.mark.parametrize("name", PROBES)
def test_questions_depend_on_the_seed_alone_and_do_not_repeat(name: str) -> None:
    questions = PROBES[name](20, 0)
    assert questions == PROBES[name](20, 0) != PROBES[name](20, 1)
    assert len({question.prompt for question in questions}) == len(questions)
    assert not any(question.prompt.endswith(" ") for question in questions)
    assert len(PROBES[name](10**6 if name != "arithmetic" else 90, 0)) >= (30 if name == "chat" else 70)


@pytest.mark.parametrize("family", ["byte-level", "sentencepiece"])
@pytest.mark.parametrize(
    ("written", "right"),
    [
        (" 1234\n", True),
        ("1234\n2 + 2 = 4", True),
        (" 1234", True),
        (" 12345\n", False),
        (" 1234 and", False),
        (" 123\n4", False),
        ("\n1234", False),
    ],
)
def test_a_written_answer_must_be_exactly_right(family: str, written: str, right: bool, tokenizer_of: Make) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_of(family))
    ids = tokenizer(written, add_special_tokens=False)["input_ids"]
    asked = ask(Writer(ids), tokenizer, [Question("add", "1000 + 234 =", "1234")])
    assert (asked.measure, asked.points.tolist()) == ("exact match", [float(right)])


def test_the_choice_is_the_likeliest_per_byte_as_plain_transformers_has_it(pair: tuple[Path, Path]) -> None:
    for folder in pair:
        model, tokenizer = loaded(folder)
        questions = PROBES["facts"](2, 0)
        chosen = []
        for question in questions:
            bits = []
            for choice in question.choices:
                encoded = tokenizer(f"{question.prompt} {choice}", return_tensors="pt", return_offsets_mapping=True)
                ends = encoded.pop("offset_mapping")[0, :, 1].tolist()
                with torch.inference_mode():
                    scores = model(encoded["input_ids"]).logits[0].log_softmax(-1)
                own = [n for n, end in enumerate(ends) if n and end > len(question.prompt)]
                nats = -sum(float(scores[n - 1, encoded["input_ids"][0, n]]) for n in own)
                bits.append(nats / math.log(2) / (len(choice) + 1))
            chosen.append(question.choices[int(np.argmin(bits))])
        expected = [float(one == question.answer) for one, question in zip(chosen, questions, strict=True)]
        assert ask(model, tokenizer, questions).points.tolist() == expected
        renamed = [Question(q.part, q.prompt, one, choices=q.choices) for q, one in zip(questions, chosen, strict=True)]
        assert ask(model, tokenizer, renamed).points.all()


def asked(points: list[int], parts: str, chance: float = 0.25) -> Asked:
    return Asked("accuracy", tuple(parts), points=np.array(points, float), chance=dict.fromkeys(parts, chance))


def test_a_score_stands_beside_the_sources_on_the_same_questions() -> None:
    source, own = asked([1] * 18 + [0] * 2, "a" * 10 + "b" * 10), asked([1] * 12 + [0] * 8, "a" * 10 + "b" * 10)
    score = ProbeScore(own, source, 0)
    assert (score.score, score.difference) == (pytest.approx(0.6), pytest.approx(-0.3))
    assert score.only("a").difference == 0
    assert score.only("b").difference == pytest.approx(-0.6)
    low, high = score.difference_interval or (0, 0)
    assert -0.5 < low < -0.3 < high < -0.1
    assert ProbeScore(own, own, 0).difference_interval == (0, 0), "the questions of both models are the same"
    assert score.note is None


def test_a_source_that_guesses_is_named() -> None:
    parts = "a" * 20 + "b" * 20
    knows, guesses = [1] * 19 + [0], [1, 0, 0, 0] * 5
    own = asked([1] * 40, parts)
    assert ProbeScore(own, asked(guesses * 2, parts), 0).note == (
        "the source model knows none of it: nothing to compare"
    )
    assert "none of b:" in (ProbeScore(own, asked(knows + guesses, parts), 0).note or "")
    assert ProbeScore(own, asked(knows * 2, parts), 0).note is None
    assert ProbeScore(own, None, 0).note is None
    assert ProbeScore(own, asked([0] * 40, parts, chance=0.0), 0).at_chance == ["a", "b"]
    assert ProbeScore(own, asked(([1] + [0] * 19) * 2, parts, chance=0.0), 0).at_chance == [], "nobody guesses 1 of 20"


def test_the_result_has_every_probe_of_every_model(pair: tuple[Path, Path], result: Evaluation) -> None:
    document = json.loads(json.dumps(result.as_dict()))
    assert document["settings"]["probes"] == ["arithmetic", "facts"]
    source, own = (model["probes"] for model in document["models"])
    assert list(source) == list(own) == ["arithmetic", "facts"]
    assert own["arithmetic"]["questions"] == 14
    assert own["facts"]["chance"] == 0.25
    assert source["facts"]["difference"] is None
    assert own["facts"]["difference"] == pytest.approx(own["facts"]["score"] - source["facts"]["score"])
    assert own["arithmetic"]["note"] == "the source model knows none of it: nothing to compare"
    model, tokenizer = loaded(pair[1])
    assert own["facts"]["score"] == ask(model, tokenizer, PROBES["facts"](2, 0)).points.mean()


def test_the_perplexity_ratio_per_word_is_that_of_plain_transformers(pair: tuple[Path, Path]) -> None:
    text = TEXT["english"][:120]
    found = evaluate_models([str(pair[1])], {"a": text}, against=str(pair[0]), tokens=0, window=200)
    logs = []
    for folder in pair:
        model, tokenizer = loaded(folder)
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            logs.append(float(model(ids, labels=ids).loss) * (ids.shape[1] - 1) / len(text.split()))
    source, score = (judged.score for judged in found.models)
    assert score.bytes == len(text)
    assert score.words == len(text.split())
    assert score.word_perplexity_ratio == pytest.approx(math.exp(logs[1] - logs[0]), rel=1e-3)
    assert source.word_perplexity_ratio is None


def test_the_ratio_has_an_interval(pair: tuple[Path, Path]) -> None:
    text = shipped_text("english")[:4000]
    found = evaluate_models([str(pair[1])], {"a": text}, against=str(pair[0]), tokens=0)
    score = found.models[1].score
    low, high = score.word_perplexity_ratio_interval or (0, 0)
    assert low < (score.word_perplexity_ratio or 0) < high


def test_text_and_page_show_them(pair: tuple[Path, Path], tmp_path: Path) -> None:
    text = tmp_path / "english.txt"
    text.write_text(TEXT["english"])
    page = tmp_path / "page.html"
    arguments = ["eval", str(pair[1]), "--text", str(text), "--against", str(pair[0]), "--tokens", "0"]
    done = CliRunner().invoke(main, [*arguments, "--probe", "facts", "--questions", "2", "--report", str(page)])
    assert done.exit_code == 0, done.output
    assert "facts: accuracy on 10 questions" in done.output
    assert "capitals, " in done.output
    assert "knows none of it: nothing to compare" in done.output
    assert "ppl/word" in done.output
    assert "Probe: facts" in page.read_text()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"probes": ["speling"]}, "unknown-probe"),
        ({"probes": "spelling"}, "unknown-probe"),
        ({"probes": ["facts"], "questions": 0}, "bad-setting"),
    ],
)
def test_what_does_not_exist_is_refused(options: dict[str, Any], code: str, pair: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError) as error:
        evaluate_models([str(pair[0])], TEXT, **options)
    assert error.value.code == code


def test_without_the_package_the_extra_is_named(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="lm_eval") as error:
        evaluate_models([str(pair[0])], TEXT, harness=["arc_easy"])
    assert error.value.code == "missing-extra"
    assert "tokswap[harness]" in (error.value.hint or "")
