"""`--harness`, with the lm_eval package itself where it is installed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from makers import write_json

from tokswap.errors import InputError, UsageError
from tokswap.evaluation.evaluate import evaluate_models

pytest.importorskip("lm_eval", reason="lm_eval is not installed (pip install 'tokswap[harness]')")

Make = Callable[..., Path]
QUESTIONS = [{"question": f"The number {n} is", "choices": ["even", "odd"], "answer": n % 2} for n in range(6)]


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two tasks: choices, and the perplexity of texts."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "numbers.jsonl").write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    shared: dict[str, Any] = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "numbers.jsonl")}},
        "test_split": "test",
        "doc_to_text": "{{question}}",
    }
    chosen = {"output_type": "multiple_choice", "doc_to_choice": "{{choices}}", "doc_to_target": "{{answer}}"}
    metric = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
    write_json(folder / "numbers.yaml", {"task": "numbers", **shared, **chosen, "metric_list": metric})
    rolling = {"output_type": "loglikelihood_rolling", "doc_to_target": "{{question}}", "doc_to_text": ""}
    metric = [{"metric": "word_perplexity"}]
    write_json(folder / "rolling.yaml", {"task": "rolling", **shared, **rolling, "metric_list": metric})
    return folder


def test_source_and_result_run_a_task_of_a_folder(tasks: Path, model_of: Make) -> None:
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    source, own = model_of("llama", adds_bos=True), model_of("gpt2")
    found = evaluate_models(
        [str(own)],
        {"a": "The bridge was closed."},
        against=str(source),
        tokens=0,
        harness=["numbers"],
        harness_path=tasks,
    )
    for folder, judged in zip((source, own), found.models, strict=True):
        manager = TaskManager(include_path=str(tasks), include_defaults=False)
        done = simple_evaluate(HFLM(pretrained=str(folder), device="cpu"), tasks=["numbers"], task_manager=manager)
        score = judged.probes["numbers"]
        assert score.score == done["results"]["numbers"]["acc,none"]
        assert (score.questions, score.chance, score.asked.measure) == (6, 0.5, "acc")
    assert found.models[1].probes["numbers"].difference is not None


def test_a_limit(tasks: Path, model_of: Make) -> None:
    options: dict[str, Any] = {"harness": ["numbers"], "harness_path": tasks, "harness_limit": 2}
    found = evaluate_models([str(model_of("gpt2"))], {"a": "The bridge was closed."}, tokens=0, **options)
    assert found.models[0].probes["numbers"].questions == 2


def test_tasks_that_do_not_exist_or_give_no_points(tasks: Path, model_of: Make) -> None:
    text = {"a": "The bridge was closed."}
    with pytest.raises(UsageError, match="numbrs") as unknown:
        evaluate_models([str(model_of("gpt2"))], text, harness=["numbrs"], harness_path=tasks)
    assert unknown.value.code == "unknown-task"
    with pytest.raises(InputError, match="word_perplexity") as rolling:
        evaluate_models([str(model_of("gpt2"))], text, tokens=0, harness=["rolling"], harness_path=tasks)
    assert rolling.value.code == "unsupported-task"
