"""Weights in the layout of oneDNN: products with few rows, of which a processor is made to wait for memory.

torch multiplies float32 matrices with the BLAS that it was built with. For the one to eight rows of a pass, that takes
up to three times as long as it takes to read the weights. oneDNN, which torch has too, takes hardly longer than that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

_LEAST_ROWS = 4
"""Fewer rows than this take longer, so they are filled up."""


class PackedLinear(nn.Module):
    """A linear layer for inference, with its weights in the layout of oneDNN.

    Args:
        layer: The layer whose weights and bias it has, float32 on a CPU.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bias = layer.in_features, layer.out_features, layer.bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach())

    @property
    def weight(self) -> torch.Tensor:
        """A copy of the weights in the usual layout (float32 [out, in])."""
        found: torch.Tensor = self._packed.to_dense()
        return found

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the product with the weights, and the bias added (float32 [..., in] -> [..., out])."""
        flat = rows.reshape(-1, self.in_features)
        count = len(flat)
        flat = functional.pad(flat, (0, 0, 0, max(0, _LEAST_ROWS - count)))
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(flat, self._packed, self.bias, "none", [], "")
        return found[:count].view(*rows.shape[:-1], self.out_features)


def can_pack() -> bool:
    """Whether this torch has oneDNN."""
    there: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return there and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def pack(model: Any) -> None:
    """Pack the weights of a model's linear layers, on CPUs in float32 and where torch has oneDNN.

    The model computes the same up to the rounding of float32, and is good for inference alone. Packed weights replace
    the others; an lm_head that is tied to the embedding matrix takes memory of its own.

    Args:
        model: The model; it changes.
    """
    if not can_pack():
        return
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and child.weight.device.type == "cpu" and child.weight.dtype == torch.float32:
                setattr(module, name, PackedLinear(child))
