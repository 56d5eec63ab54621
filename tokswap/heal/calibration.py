"""What a calibration is: its settings, what it works on, and what it returns.

A calibration fits new embeddings to a short text. The body of the model stays frozen. Two things are fitted: the rows
of the tokens that occur in the text, and one small linear map of the whole matrix. The map also helps tokens that the
text does not contain, and shared tokens that the new tokenizer puts where the model never saw them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tokswap.options.declare import Options, option


@dataclass(frozen=True, kw_only=True)
class Calibration(Options):
    """How a calibration runs. The settings are for experiments; the defaults were chosen on a development text."""

    tokens: int = option(
        45_000, "Tokens to train on in all, at most. This limits the time, however long the text.", least=1
    )
    epochs: int = option(4, "How often the text is read, at most.", least=1)
    rate: float = option(0.01, "First step size of a row, relative to the typical element of a row.", least=0.0)
    map_rate: float = option(3e-4, "First step size of the elements of the map.", least=0.0)
    often: int = option(8, "Occurrences in the text that a token needs to have its row fitted.", least=1)
    batch: int = option(1200, "Tokens per step, about.", least=1)
    held_out: int = option(8, "Hold out every n-th passage, to tell whether the fit helps.", least=2)


@dataclass(frozen=True)
class Matrices:
    """The new vocabulary matrices of a model.

    Attributes:
        input: Input embeddings, float32 [V, D].
        output: lm_head, float32 [V, D]; None where the input embeddings are the lm_head too.
        bias: Bias of the lm_head, float32 [V], or None. It is used and not changed.
    """

    input: np.ndarray
    output: np.ndarray | None = None
    bias: np.ndarray | None = None


@dataclass(frozen=True)
class Calibrated:
    """The result of a calibration.

    Attributes:
        matrices: The fitted matrices, None where they predict the held-out passages worse than the old ones.
        history: Plain data for the Report.
    """

    matrices: Matrices | None
    history: dict[str, Any]

    def notes(self) -> list[str]:
        """Return what the user should know."""
        if self.matrices is not None:
            return []
        outcome = "calibration made the held-out part of the text no easier to predict"
        return [f"{outcome}; the new embeddings stay as the method computed them"]


def cost(settings: Calibration, tokens: int, body: int, matrix: int) -> float:
    """Estimate the floating-point operations of a calibration.

    Each parameter costs two operations per token forward and as many backward. The held-out passages and the choice of
    a method to start from are included.

    Args:
        settings: How it runs.
        tokens: Tokens of the text.
        body: Parameters outside the vocabulary matrices.
        matrix: Parameters of one vocabulary matrix.
    """
    trained = min(settings.epochs * tokens, settings.tokens)
    size = body + matrix
    return 4.0 * size * trained * (1 + 1 / settings.held_out) + 2.0 * size * min(tokens, 20_000)
