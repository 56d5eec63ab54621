"""Evaluates models on texts: runs them one after the other and scores each on the same bytes."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.checkpoint.loaded import Loaded, ModelLike, as_loaded, name_of
from tokswap.errors import UsageError
from tokswap.evaluation.models import check_device, evaluation_mode, load_model
from tokswap.evaluation.options import EvaluateOptions
from tokswap.evaluation.probes.ask import PROBES, Asked, ask, check_probes
from tokswap.evaluation.probes.harness import check_harness, run_harness
from tokswap.evaluation.probes.template import check_template
from tokswap.evaluation.results import Evaluation
from tokswap.evaluation.runs import Run, run_model, score_runs
from tokswap.options.keywords import two_and_keywords
from tokswap.report.provenance import read_provenance
from tokswap.storage.resolve import resolve_model
from tokswap.storage.texts import check_texts
from tokswap.tokenizer.alignment import Reason, align
from tokswap.tokenizer.loaded import read_loaded
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer


@two_and_keywords(EvaluateOptions)
def evaluate_models(models: Sequence[ModelLike], texts: Mapping[str, str], options: EvaluateOptions) -> Evaluation:
    """Evaluate models on texts. All are scored on the same bytes: those that every model predicts.

    Models that are given by name are loaded one after the other, so one of them is in memory at a time. Loaded models
    are used as they are, with their own dtype and device.

    Args:
        models: Folders, hub ids, aliases, .gguf files or loaded models with their tokenizers.
        texts: The texts by name. Each is read from its own beginning.
        options: See below.

    Returns:
        The results, the source model first.

    Raises:
        UsageError: bad-device, bad-model, bad-setting, bad-window, unknown-probe, unknown-task.
        InputError: no-chat-template; bad-chat; if a model, a text or a task cannot be evaluated.
    """
    return evaluate_with(models, texts, options)


def evaluate_with(models: Sequence[ModelLike], texts: Mapping[str, str], options: EvaluateOptions) -> Evaluation:
    """Do what `evaluate_models` does, with an options object."""
    check_texts(texts, needed=True)
    check_device(options.device)
    check_probes(options.probes)
    check_harness(options)
    first = [] if options.against is None else [options.against]
    found = _open([*first, *models], options.trust_remote_code)
    if not found:
        raise UsageError("bad-model", "there is no model to evaluate", "name one or more")
    against = next(iter(found)) if first else None
    if "chat" in options.probes:
        for name, given in found.items():
            check_template(name, _tokenizer(given).chat_templates)
    source = found[against] if against is not None else None
    initialised = {name: _initialised_ids(given, source) for name, given in found.items()}
    runs: dict[str, Run] = {}
    with byte_bar(len(found), texts, options.progress) as bar:
        for name, given in found.items():
            bar.set_description(Path(name).name)
            runs[name] = _run_one(given, texts, options, initialised[name], bar.update)
            release(options.device)
    return score_runs(runs, texts, options.recorded(), against=against, seed=options.seed)


def _open(models: Sequence[ModelLike], trust_remote_code: bool) -> dict[str, Path | Loaded]:
    """Return each model once, by its name: its folder, or the model itself if it is loaded."""
    found: dict[str, Path | Loaded] = {}
    seen: set[int | str] = set()
    for model in models:
        loaded = as_loaded(model, trust_remote_code=trust_remote_code)
        key = str(model) if loaded is None else id(loaded.model)
        if key in seen:
            continue
        seen.add(key)
        name = str(model) if loaded is None else name_of(loaded.model) or "loaded model"
        twins = sum(other == name or other.startswith(f"{name} (") for other in found)
        found[f"{name} ({twins + 1})" if twins else name] = loaded or resolve_model(str(model))
    return found


def _run_one(
    given: Path | Loaded,
    texts: Mapping[str, str],
    options: EvaluateOptions,
    initialised: np.ndarray | None,
    done: Callable[[int], object],
) -> Run:
    """Load a model unless it is loaded, run it, and free it."""
    if isinstance(given, Loaded):
        with evaluation_mode(given.model):
            run = run_model(given.model, given.tokenizer, texts, options, initialised=initialised, done=done)
            return replace(run, asked=_asked(given.model, given.tokenizer, options))
    model, tokenizer = load_model(
        given, dtype=options.dtype, device=options.device, trust_remote_code=options.trust_remote_code
    )
    run = run_model(model, tokenizer, texts, options, initialised=initialised, done=done)
    return replace(run, asked=_asked(model, tokenizer, options))


def _asked(model: Any, tokenizer: Any, options: EvaluateOptions) -> dict[str, Asked]:
    """Ask the questions of all probes and tasks."""
    own = {}
    for name in options.probes:
        questions = PROBES[name](options.questions, options.seed)
        own[name] = ask(model, tokenizer, questions, show=name if options.progress else "")
    return {**own, **run_harness(model, tokenizer, options, options.seed, show=options.progress)}


def _initialised_ids(given: Path | Loaded, source: Path | Loaded | None) -> np.ndarray | None:
    """Return the ids of initialised rows: from tokswap.json, else by comparison with the source's vocabulary."""
    if isinstance(given, Path):
        reasons = read_provenance(given).reason
        if len(reasons):
            return np.flatnonzero(reasons == Reason.MISSING)
    if source is None or source == given:
        return None
    own, other = _tokenizer(given), _tokenizer(source)
    return align(own.vocabulary, other.vocabulary, bos_first=other.adds_bos).missing


def _tokenizer(given: Path | Loaded) -> Tokenizer:
    return read_tokenizer(given) if isinstance(given, Path) else read_loaded(given.tokenizer)


@contextmanager
def byte_bar(models: int, texts: Mapping[str, str], progress: bool) -> Iterator[Any]:
    """Show a progress bar over the bytes that several models read."""
    from tqdm.auto import tqdm

    total = models * sum(len(text.encode("utf-8")) for text in texts.values())
    with tqdm(total=total, unit="B", unit_scale=True, disable=None if progress else True) as bar:
        yield bar


def release(device: str) -> None:
    """Give a model's memory back before the next one is loaded."""
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
