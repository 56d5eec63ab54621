"""Calibration: what a short text and a few passes of the source model can give to the rows of its new vocabulary.

The model's body stays frozen. The rows of the tokens that occur in the text, and one small linear map of the whole
table, are fitted to the text as the new tokenizer cuts it. The map reaches what no choice of made rows can: shared
tokens in segmentations that the model never saw, and tokens that the text does not hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tokswap.init.base import option


@dataclass(frozen=True)
class Calibration:
    """How a calibration runs. The fields are for experiments; the defaults were chosen on a development text."""

    tokens: int = option(45_000, "tokens to train on in all: what bounds the cost, whatever the text", least=1)
    epochs: int = option(4, "times that a text is read, at most", least=1)
    rate: float = option(0.01, "first step size of a row, as a share of the typical row element", least=0.0)
    map_rate: float = option(3e-4, "first step size of the map's elements", least=0.0)
    often: int = option(
        8, "times that a token must occur in the text to have a row fitted; the map is for the others", least=1
    )
    batch: int = option(1200, "tokens a step, about", least=1)
    held_out: int = option(8, "every n-th passage is held out, to know when to stop", least=2)


@dataclass(frozen=True)
class Tables:
    """The new tables of a model.

    input, output: float32[V, D]; output is None where input is the head. bias: float32[V] or None, of the head; it is
    used and not changed.
    """

    input: np.ndarray
    output: np.ndarray | None = None
    bias: np.ndarray | None = None


@dataclass(frozen=True)
class Calibrated:
    """What a calibration made. tables: None where the held-out passages were not predicted better in the end.

    history: plain data for the Report.
    """

    tables: Tables | None
    history: dict[str, Any]

    def notes(self) -> list[str]:
        """Sentences for the user."""
        if self.tables is not None:
            return []
        return [
            "calibration made the held-out part of the text no easier to predict; the rows stay as the method made them"
        ]


def cost(settings: Calibration, tokens: int, body: int, table: int) -> float:
    """Return about how many floating-point operations a calibration takes.

    tokens: of the text. body, table: parameters outside the vocabulary tables, and of one of them. A token costs two
    operations a parameter forward and as many backward; the held-out part and the choice of a start are in it too.
    """
    trained = min(settings.epochs * tokens, settings.tokens)
    return 4.0 * (body + table) * trained * (1 + 1 / settings.held_out) + 2.0 * (body + table) * min(tokens, 20_000)
