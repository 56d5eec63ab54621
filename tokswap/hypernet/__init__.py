"""ZeTT: a hypernetwork that predicts the embeddings of any tokenizer's tokens (arXiv 2405.07883).

    hypernet = load_hypernet("./hypernet")
    rows, head, bias = hypernet(surface_forms, source_embeddings)

Names are loaded on first use. Only `tokswap.hypernet.model` and the modules that train it import torch at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokswap.hypernet.config import HypernetConfig
    from tokswap.hypernet.convert import import_hypernet, load_hypernet, open_surface
    from tokswap.hypernet.predict import Hypernet, Prediction
    from tokswap.hypernet.settings import TrainSettings

_HOME_OF = {
    "Hypernet": "predict",
    "HypernetConfig": "config",
    "Prediction": "predict",
    "TrainSettings": "settings",
    "import_hypernet": "convert",
    "load_hypernet": "convert",
    "open_surface": "convert",
}

__all__ = [
    "Hypernet",
    "HypernetConfig",
    "Prediction",
    "TrainSettings",
    "import_hypernet",
    "load_hypernet",
    "open_surface",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'tokswap.hypernet' has no attribute {name!r}")
    return getattr(import_module(f"tokswap.hypernet.{_HOME_OF[name]}"), name)
