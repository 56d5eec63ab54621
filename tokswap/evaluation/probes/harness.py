"""Tasks of lm-evaluation-harness, run on a model that is loaded already. Their points are read question by question."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.errors import InputError, UsageError, did_you_mean
from tokswap.evaluation.options import ProbeOptions
from tokswap.evaluation.probes.ask import Asked


def check_harness(options: ProbeOptions) -> None:
    """Refuse tasks that cannot be run, before a model is loaded.

    Raises:
        InputError: missing-extra.
        UsageError: unknown-task.
    """
    if not options.harness:
        return
    if find_spec("lm_eval") is None:
        message = "--harness needs lm-evaluation-harness (the lm_eval package)"
        raise InputError("missing-extra", message, "pip install 'tokswap[harness]'")
    if options.harness_path is not None and not Path(options.harness_path).is_dir():
        raise UsageError("unknown-task", f"--harness-path is not a folder: {options.harness_path}")
    known = set(_manager(options).all_tasks)
    for task in options.harness:
        if task not in known:
            where = f"in {options.harness_path}" if options.harness_path else "among those of lm_eval"
            message = f"there is no task {task!r} {where}{did_you_mean(task, sorted(known))}"
            raise UsageError("unknown-task", message, "--harness-path names the folder of the task's YAML file")


def run_harness(model: Any, tokenizer: Any, options: ProbeOptions, seed: int, *, show: bool) -> dict[str, Asked]:
    """Run the tasks on a model.

    Args:
        model: A loaded causal language model, in evaluation mode.
        tokenizer: Its transformers tokenizer.
        options: The tasks.
        seed: Seed of everything that a task draws.
        show: Whether lm_eval may show its progress.

    Returns:
        Task -> its points. The parts of a group of tasks are its tasks.

    Raises:
        InputError: harness-failed, unsupported-task.
    """
    if not options.harness:
        return {}
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    seeds = dict.fromkeys(("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed"), seed)
    found = {}
    with _quiet(show):
        own = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=1)
        manager = _manager(options)
        for task in options.harness:
            try:
                done = simple_evaluate(
                    own, tasks=[task], task_manager=manager, limit=options.harness_limit, bootstrap_iters=0, **seeds
                )
            except Exception as error:  # whatever the task's own code and the dataset library raise
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise InputError(
                    "harness-failed", f"lm_eval cannot run the task {task}: {reason}", task=task
                ) from error
            found[task] = _asked(task, done)
    return found


@contextlib.contextmanager
def _quiet(show: bool) -> Iterator[None]:
    """Keep the progress bars of lm_eval and datasets off the terminal."""
    if show:
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def _manager(options: ProbeOptions) -> Any:
    from lm_eval.tasks import TaskManager

    path = None if options.harness_path is None else str(options.harness_path)
    return TaskManager(include_path=path, include_defaults=path is None)


def _asked(task: str, done: Mapping[str, Any]) -> Asked:
    """Read the points of a task, by the first metric that each of its tasks names, with the first filter."""
    parts: list[str] = []
    points: list[float] = []
    chance: dict[str, float] = {}
    measures = []
    for part, samples in done["samples"].items():
        config = done["configs"][part]
        measure = str(config["metric_list"][0]["metric"]) if config.get("metric_list") else samples[0]["metrics"][0]
        own = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
        values = [sample.get(measure) for sample in own]
        if not all(isinstance(value, (bool, int, float, np.number)) for value in values):
            message = f"the metric {measure} of the task {part} is not a number for each question"
            raise InputError("unsupported-task", message, "use a task with accuracy or exact match", task=task)
        is_choice = config.get("output_type") == "multiple_choice"
        chance[part] = float(np.mean([1 / len(sample["arguments"]) for sample in own])) if is_choice else 0.0
        parts += [part] * len(own)
        points += map(float, values)
        measures.append(measure)
    return Asked(", ".join(dict.fromkeys(measures)), tuple(parts), points=np.array(points), chance=chance)
