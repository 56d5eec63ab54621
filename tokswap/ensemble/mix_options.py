"""What a user can set when the predictions of several models are mixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokswap.evaluation.options import ReadingOptions, RunOptions
from tokswap.options.declare import Options, option
from tokswap.options.groups import TrustOptions

MIXES = ("probabilities", "logits", "adaptive")


@dataclass(frozen=True, kw_only=True)
class MixOptions(Options):
    """How predictions are mixed."""

    mix: str = option(
        "probabilities",
        "Mean of the members' probabilities or of their logits; adaptive: of probabilities, with weights that follow "
        "the members' success on the text so far.",
        choices=MIXES,
        code="bad-mix",
    )
    weights: str | Sequence[float] | None = option(
        None, "Weight of each member, in their order. [default: as prepared]", metavar="W,W", recorded=False
    )


@dataclass(frozen=True, kw_only=True)
class MixedModelOptions(MixOptions, RunOptions, TrustOptions):
    """How a mixed model is loaded."""


@dataclass(frozen=True, kw_only=True)
class EvaluateEnsembleOptions(MixedModelOptions, ReadingOptions):
    """How an ensemble is evaluated."""

    sources: bool = option(False, "Also evaluate the models that the members were made from.", recorded=False)
