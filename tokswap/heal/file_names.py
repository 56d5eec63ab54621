"""Trained weights under the names and shapes that the files of their model have.

transformers may give a weight another name when it loads a model, join several tensors of the files in one weight (the
experts of a layer), or turn one. `save_pretrained` takes that back, and so does this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

Compute = Callable[[], torch.Tensor]
"""Computes the numbers of a tensor when they are needed."""


def as_in_files(model: Any, trained: Mapping[str, Compute], files: Mapping[str, object]) -> dict[str, Compute]:
    """Return trained numbers by the names of the files.

    What only has another name is computed when it is asked for; what has other shapes is computed here.

    Args:
        model: The model as it was loaded from the files, with or without a LoRA adapter.
        trained: Name of a weight -> its new numbers, or what is added to the old ones.
        files: The tensors of the files by name.
    """
    found: dict[str, Compute] = {}
    state, joined = _state(model), []
    for name, weight in state.items():
        own = _renamed(model, name, weight)
        if own is None:
            joined.append(name)
        elif name in trained:
            found[_with_prefix(model, own, files)] = trained[name]
    if not any(name in trained for name in joined):
        return found
    whole = {name: trained[name]() if name in trained else _zeros(state[name]) for name in joined}
    every = all(name in trained for name in joined)
    for name, part in _reverted(model, whole).items():
        if every or bool(part.any()):
            found[_with_prefix(model, name, files)] = part.detach
    return found


def _state(model: Any) -> dict[str, torch.Tensor]:
    """The shapes of a model's weights, by their names without an adapter. A process may have parts of them only."""
    state = {name: one for name, one in model.state_dict().items() if ".lora_" not in name}
    return {
        name.replace(".base_layer.", "."): torch.empty(one.shape, dtype=one.dtype, device="meta")
        for name, one in state.items()
    }


def _reverted(model: Any, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Take back what transformers did to the tensors of the files."""
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # transformers 4 has a weight for each tensor
        return state
    found: dict[str, torch.Tensor] = revert_weight_conversion(model, state)
    return found


def _renamed(model: Any, name: str, weight: torch.Tensor) -> str | None:
    """Return the name of a weight in the files, None where it has another shape there."""
    if not getattr(model, "_weight_conversions", None):
        return name
    try:
        found = _reverted(model, {name: weight})
    except Exception:  # it is part of a tensor of the files, and the other parts are not given
        return None
    own, tensor = next(iter(found.items()))
    return own if len(found) == 1 and tensor is weight else None


def _with_prefix(model: Any, name: str, files: Mapping[str, object]) -> str:
    """Return a name as the files have it: they may lack the prefix of the body, as those of GPT-2 do."""
    short = name.removeprefix(f"{model.base_model_prefix}.")
    return short if name not in files and short in files else name


def _zeros(like: torch.Tensor) -> torch.Tensor:
    """Zeros of a shape that need no memory."""
    return torch.zeros(()).expand(like.shape)
