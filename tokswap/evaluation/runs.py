"""Runs models on texts, and scores the runs on the bytes that all of them predict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tokswap.errors import InputError
from tokswap.evaluation.bootstrap import Units
from tokswap.evaluation.breakdown import Span
from tokswap.evaluation.continuations import greedy
from tokswap.evaluation.losses import TokenLosses, token_losses
from tokswap.evaluation.options import ReadingOptions
from tokswap.evaluation.probes.ask import Asked
from tokswap.evaluation.probes.scores import ProbeScore
from tokswap.evaluation.results import Evaluation, Judged
from tokswap.evaluation.scores import ModelScore


@dataclass(frozen=True)
class Run:
    """What stays of a model after it has read the texts.

    Attributes:
        losses: Its token losses of each text.
        samples: Its continuation of each prompt.
        initialised: Token ids whose rows were initialised (int64), None if they are not known.
        asked: How it did on each probe and task.
    """

    losses: Mapping[str, TokenLosses]
    samples: Mapping[str, str]
    initialised: np.ndarray | None
    asked: Mapping[str, Asked] = field(default_factory=dict)

    def spans(self, begins: Mapping[str, int]) -> dict[str, Span]:
        """Return the tokens of each text from its byte in `begins` on."""
        initialised = np.zeros(0, np.int64) if self.initialised is None else self.initialised
        return {
            name: Span.of(found.ids, found.offsets, found.bits, begins[name], initialised)
            for name, found in self.losses.items()
        }


def run_model(
    model: Any,
    tokenizer: Any,
    texts: Mapping[str, str],
    options: ReadingOptions,
    *,
    initialised: np.ndarray | None = None,
    done: Callable[[int], object] = lambda n: None,
) -> Run:
    """Let one loaded model read the texts and continue the prompts.

    Args:
        model: The model.
        tokenizer: Its transformers tokenizer.
        texts: The texts by name.
        options: How to read them.
        initialised: Token ids whose rows were initialised (int64), None if they are not known.
        done: Called with the number of bytes that were read.

    Raises:
        UsageError: bad-window, bad-prompt, empty-prompt.
        InputError: empty-text; it names the text.
    """
    prompts = options.prompts if options.tokens else ()
    samples = {prompt: greedy(model, tokenizer, prompt, options.tokens) for prompt in prompts}
    losses = {}
    for name, text in texts.items():
        try:
            losses[name] = token_losses(
                model, tokenizer, text, window=options.window, overlap=options.overlap, done=done
            )
        except InputError as error:
            error.where["text"] = name
            raise
    return Run(losses, samples, initialised)


def score_runs(
    runs: Mapping[str, Run],
    texts: Mapping[str, str],
    settings: Mapping[str, object],
    *,
    against: str | None = None,
    seed: int = 0,
) -> Evaluation:
    """Score each run on the bytes that all of them predict.

    Args:
        runs: The runs by name of the model.
        texts: The texts by name.
        settings: How the texts were read.
        against: Name of the source model's run, None without one.
        seed: Seed of the intervals.

    Raises:
        InputError: empty-text, if the models have no common boundary in a text.
    """
    whole = {name: text.encode("utf-8") for name, text in texts.items()}
    begins = {name: _common_begin(name, [run.losses[name] for run in runs.values()]) for name in texts}
    spans = {name: run.spans(begins) for name, run in runs.items()}
    units = Units.of(whole)
    judged = []
    for name, run in runs.items():
        is_source = name == against
        score = ModelScore(
            texts=whole,
            spans=spans[name],
            source=spans[against] if against is not None and not is_source else None,
            known=run.initialised is not None and not is_source,
            units=units,
            seed=seed,
        )
        beside = runs[against].asked if against is not None and not is_source else {}
        probes = {probe: ProbeScore(asked, beside.get(probe), seed) for probe, asked in run.asked.items()}
        judged.append(Judged(name, is_source, score, samples=run.samples, notes=_notes(score), probes=probes))
    return Evaluation(judged, list(texts), against, settings=settings, units=units)


def _common_begin(name: str, losses: Sequence[TokenLosses]) -> int:
    """Return the first byte of a text from which every model predicts; all have a boundary there."""
    common = set(losses[0].offsets[losses[0].read :].tolist())
    for other in losses[1:]:
        common &= set(other.offsets[other.read :].tolist())
    begin = min(common)
    if begin == losses[0].offsets[-1]:
        raise InputError(
            "empty-text",
            "this text is too short to compare models: their tokens have no common boundary before its end",
            "give a longer text",
            text=name,
        )
    return int(begin)


def _notes(score: ModelScore) -> list[str]:
    """Warn about texts that take many more tokens than before."""
    if score.source is None:
        return []
    found = (length_note(name, len(score.source[name].ids), len(span.ids)) for name, span in score.spans.items())
    return [note for note in found if note]


def length_note(name: str, before: float, after: float) -> str | None:
    """Warn if a text takes many more tokens than with the source's tokenizer.

    Args:
        name: Name of the text.
        before: Its tokens, or tokens per byte, with the source's tokenizer.
        after: The same with the new tokenizer.
    """
    if after < 1.25 * before:
        return None
    return (
        f"{name} takes {100 * (after / before - 1):.0f} % more tokens than with the source's tokenizer: the model is "
        "slower on it and holds less of it in its context"
    )
