"""Whether a model goes on from its cache as it reads a whole text. Some do not, and give no sign."""

from __future__ import annotations

from typing import Any

import numpy as np

_CLOSE = {"torch.float32": 0.01}
"""Type of a model -> how far its log-probabilities may be from those of a plain pass, in their standard deviations."""
_CLOSE_IN_HALF = 0.1


def predicts_alike(model: Any, found: np.ndarray, plain: np.ndarray) -> bool:
    """Return whether log-probabilities are those of a plain pass, but for rounding.

    Args:
        model: The model that gave them.
        found: Those that a cache or a mask had a part in (float32 [..., V]).
        plain: Those of a plain pass (float32 [..., V]).
    """
    close = _CLOSE.get(str(model.dtype), _CLOSE_IN_HALF)
    return float(np.abs(found - plain).max()) <= close * float(plain.std())
