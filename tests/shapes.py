"""Models that are nothing but names and shapes, and the vocabulary matrices that are found in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tokswap.checkpoint.find_matrices import find_matrices
from tokswap.checkpoint.matrices import VocabMatrix

V, D = 771, 32
Shapes = dict[str, tuple[int, ...]]
CAUSAL: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "vocab_size": V, "hidden_size": D}
BODY: Shapes = {"model.embed_tokens.weight": (V, D)}


def matrices(
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    same: Callable[[str, str], bool] = lambda first, second: False,
    dtype: str = "F32",
    dtypes: Mapping[str, str] | None = None,
) -> tuple[VocabMatrix, ...]:
    """Find the vocabulary matrices among tensors of these shapes.

    same: whether two tensors have equal bytes. dtypes: those of tensors that are not `dtype`.
    """
    tensors = {name: ((dtypes or {}).get(name, dtype), shape) for name, shape in shapes.items()}
    return find_matrices("folder", config, tensors, same)
