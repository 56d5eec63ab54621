"""Evaluates an ensemble on texts: each member, the mix, and on request the models that the members were made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tokswap.ensemble.members import Ensemble, read_ensemble
from tokswap.ensemble.mix import load_ensemble
from tokswap.ensemble.mix_options import EvaluateEnsembleOptions
from tokswap.errors import InputError
from tokswap.evaluation.evaluate import byte_bar, release
from tokswap.evaluation.models import check_device, load_model
from tokswap.evaluation.results import Evaluation
from tokswap.evaluation.runs import Run, run_model, score_runs
from tokswap.options.keywords import two_and_keywords
from tokswap.storage.resolve import resolve_model
from tokswap.storage.texts import check_texts

MIX = "the mix"
"""The name of the mix among the models of an evaluation."""


@two_and_keywords(EvaluateEnsembleOptions)
def evaluate_ensemble(folder: str | Path, texts: Mapping[str, str], options: EvaluateEnsembleOptions) -> Evaluation:
    """Evaluate an ensemble on texts. All models are scored on the same bytes.

    The sources are loaded one after the other, then all members are in memory at once.

    Args:
        folder: A folder with an ensemble.json.
        texts: The texts by name.
        options: See below.

    Returns:
        The results of the sources, of the members by their names, and of the mix as `MIX`. The settings hold the mix
        and the weights.

    Raises:
        UsageError: bad-weights, bad-mix, bad-device, bad-setting, bad-window.
        InputError: unknown-source, if ensemble.json does not say what a member was made from; and if a model or text
            cannot be evaluated.
    """
    return evaluate_ensemble_with(folder, texts, options)


def evaluate_ensemble_with(
    folder: str | Path, texts: Mapping[str, str], options: EvaluateEnsembleOptions
) -> Evaluation:
    """Do what `evaluate_ensemble` does, with an options object."""
    check_texts(texts, needed=True)
    check_device(options.device)
    ensemble = read_ensemble(folder)
    sources = _sources(ensemble) if options.sources else {}
    how = {"dtype": options.dtype, "device": options.device}
    runs: dict[str, Run] = {}
    with byte_bar(len(sources) + len(ensemble.members) + 1, texts, options.progress) as bar:
        for name, path in sources.items():
            bar.set_description(path.name)
            model, tokenizer = load_model(path, trust_remote_code=options.trust_remote_code, **how)
            runs[name] = run_model(model, tokenizer, texts, options, done=bar.update)
            del model, tokenizer
            release(options.device)
        mixed, tokenizer = load_ensemble(
            folder, weights=options.weights, mix=options.mix, trust_remote_code=options.trust_remote_code, **how
        )
        names = [member.name for member in ensemble.members]
        for name, model in [*zip(names, mixed.members, strict=True), (MIX, mixed)]:
            bar.set_description(name)
            runs[name] = run_model(model, tokenizer, texts, options, done=bar.update)
    settings = {**options.recorded(), "weights": dict(zip(names, mixed.weights, strict=True))}
    return score_runs(runs, texts, settings, seed=options.seed)


def _sources(ensemble: Ensemble) -> dict[str, Path]:
    """Return the folders of the models that the members were made from, by the names of the results."""
    nameless = [member.name for member in ensemble.members if not member.model]
    if nameless:
        message = f"ensemble.json does not say what these members were made from: {', '.join(nameless)}"
        raise InputError("unknown-source", message, "leave out --sources", folder=ensemble.folder)
    return {f"{member.model} (own tokenizer)": resolve_model(member.model) for member in ensemble.members}
