"""Judges models on texts: runs them one after the other and makes a verdict on each, on the same bytes."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.errors import InputError
from tokswap.evaluation.breakdown import Span
from tokswap.evaluation.losses import TokenLosses, check_device, greedy, load_model, token_losses
from tokswap.evaluation.scores import Units, Verdict
from tokswap.report.record import read_origin, versions
from tokswap.storage.resolve import resolve_model
from tokswap.tokenizer.alignment import Reason, align
from tokswap.tokenizer.probes import PROMPTS
from tokswap.tokenizer.tokenizer import read_tokenizer


@dataclass(frozen=True)
class Judged:
    """One model: its name, what it makes of all texts, how it goes on from each prompt, and what to know about it."""

    model: str
    is_source: bool
    verdict: Verdict
    samples: Mapping[str, str]
    notes: Sequence[str]


@dataclass(frozen=True)
class Evaluation:
    """Several models on the same bytes, the source first where there is one."""

    models: Sequence[Judged]
    texts: Sequence[str]
    against: str | None
    settings: Mapping[str, object]
    units: Units

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "against": self.against,
            "settings": dict(self.settings),
            "units": {"kind": self.units.kind, "count": {n: len(e) - 1 for n, e in self.units.edges.items()}},
            "models": [
                {
                    "model": judged.model,
                    "is_source": judged.is_source,
                    "all": judged.verdict.as_dict(),
                    "texts": {name: judged.verdict.only(name).as_dict() for name in self.texts},
                    "samples": dict(judged.samples),
                    "notes": list(judged.notes),
                }
                for judged in self.models
            ],
            "versions": versions(),
        }


@dataclass(frozen=True)
class Run:
    """What is kept of a model when it is gone. made: the ids whose rows were made, None where that is not known."""

    losses: Mapping[str, TokenLosses]
    samples: Mapping[str, str]
    made: np.ndarray | None

    def spans(self, begins: Mapping[str, int]) -> dict[str, Span]:
        """Return each text's tokens from its byte of `begins` on."""
        made = np.zeros(0, np.int64) if self.made is None else self.made
        return {
            name: Span.of(found.ids, found.offsets, found.bits, begins[name], made)
            for name, found in self.losses.items()
        }


def evaluate_models(
    models: Sequence[str],
    texts: Mapping[str, str],
    *,
    against: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    window: int = 512,
    overlap: int = 128,
    prompts: Sequence[str] = PROMPTS,
    tokens: int = 24,
    seed: int = 0,
    trust_remote_code: bool = False,
    progress: bool = False,
) -> Evaluation:
    """Judge models on texts, one model in memory at a time.

    models, against: folders, hub ids, aliases or .gguf files; `against` is the source model, to which the others are
    compared. texts: name -> text; texts are read one by one, each from its own beginning. window, overlap: see
    `token_losses`. prompts, tokens: beginnings to go on from, greedily, and by how much; 0 tokens for no samples.
    All models are judged on the same bytes: those after the first place in a text from which all predict.

    Raises UsageError bad-device, bad-window; InputError for a model or text that cannot be judged.
    """
    from tqdm import tqdm

    check_device(device)
    names = list(dict.fromkeys([*([against] if against is not None else []), *models]))
    folders = {name: resolve_model(name) for name in names}
    source_folder = folders[against] if against is not None else None
    made = {name: _made_ids(folder, source_folder) for name, folder in folders.items()}
    runs: dict[str, Run] = {}
    with tqdm(
        total=len(names) * sum(len(text.encode("utf-8")) for text in texts.values()),
        unit="B",
        unit_scale=True,
        disable=None if progress else True,
    ) as bar:
        for name, folder in folders.items():
            bar.set_description(folder.name)
            model, tokenizer = load_model(folder, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
            runs[name] = run(
                model,
                tokenizer,
                texts,
                window=window,
                overlap=overlap,
                prompts=prompts,
                tokens=tokens,
                made=made[name],
                done=bar.update,
            )
            del model, tokenizer
            release(device)
    settings = {"dtype": dtype, "device": device, "window": window, "overlap": overlap, "tokens": tokens, "seed": seed}
    return conclude(runs, texts, settings, against=against, seed=seed)


def run(
    model: Any,
    tokenizer: Any,
    texts: Mapping[str, str],
    *,
    window: int = 512,
    overlap: int = 128,
    prompts: Sequence[str] = PROMPTS,
    tokens: int = 24,
    made: np.ndarray | None = None,
    done: Callable[[int], object] = lambda n: None,
) -> Run:
    """Let one loaded model read the texts and go on from the prompts; see `evaluate` for the rest."""
    losses = {key: _losses(model, tokenizer, key, text, window, overlap, done) for key, text in texts.items()}
    samples = {prompt: greedy(model, tokenizer, prompt, tokens) for prompt in prompts} if tokens > 0 else {}
    return Run(losses, samples, made)


def conclude(
    runs: Mapping[str, Run],
    texts: Mapping[str, str],
    settings: Mapping[str, object],
    *,
    against: str | None = None,
    seed: int = 0,
) -> Evaluation:
    """Make a verdict on each run, on the bytes that all of them predict. against: the run to which the others are compared."""
    whole = {name: text.encode("utf-8") for name, text in texts.items()}
    begins = {key: _common_begin(key, [run.losses[key] for run in runs.values()]) for key in texts}
    spans = {name: run.spans(begins) for name, run in runs.items()}
    units = Units.of(whole)
    judged = []
    for name, run in runs.items():
        is_source = name == against
        source = spans[against] if against is not None and not is_source else None
        verdict = Verdict(whole, spans[name], source, run.made is not None and not is_source, units, seed)
        judged.append(Judged(name, is_source, verdict, run.samples, _notes(verdict)))
    return Evaluation(judged, list(texts), against, settings, units)


def _losses(
    model: Any, tokenizer: Any, name: str, text: str, window: int, overlap: int, done: Callable[[int], object]
) -> TokenLosses:
    try:
        return token_losses(model, tokenizer, text, window=window, overlap=overlap, done=done)
    except InputError as error:
        error.where["text"] = name
        raise


def _made_ids(folder: Path, source: Path | None) -> np.ndarray | None:
    """The ids whose rows no source row was copied for: as tokswap.json says, else those that the source has no token for."""
    origin = read_origin(folder)
    if len(origin.reason):
        return np.flatnonzero(origin.reason == Reason.MISSING)
    if source is None or source == folder:
        return None
    tokenizers = [read_tokenizer(path) for path in (folder, source)]
    alignment = align(*(tokenizer.vocabulary for tokenizer in tokenizers), bos_first=tokenizers[1].adds_bos)
    return alignment.missing


def _common_begin(name: str, losses: Sequence[TokenLosses]) -> int:
    """The first byte of a text from which every model predicts; a boundary for all of them."""
    common = set(losses[0].offsets[losses[0].read :].tolist())
    for other in losses[1:]:
        common &= set(other.offsets[other.read :].tolist())
    begin = min(common)
    if begin == losses[0].offsets[-1]:
        raise InputError(
            "empty-text",
            "this text is too short to compare models: they have no common boundary before its end",
            "give a longer text",
            text=name,
        )
    return int(begin)


def _notes(verdict: Verdict) -> list[str]:
    """Warn of texts that take many more tokens than before."""
    if verdict.source is None:
        return []
    found = (length_note(name, len(verdict.source[name].ids), len(span.ids)) for name, span in verdict.spans.items())
    return [note for note in found if note]


def release(device: str) -> None:
    """Give a model's memory back before the next one is loaded."""
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


def length_note(name: str, before: float, after: float) -> str | None:
    """Warn where a text takes many more tokens than with the source's tokenizer. before, after: tokens, or tokens a byte."""
    if after < 1.25 * before:
        return None
    return (
        f"{name} takes {100 * (after / before - 1):.0f} % more tokens than with the source's tokenizer: the model will be "
        "slower on it and hold less of it in its context"
    )
