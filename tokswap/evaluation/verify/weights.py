"""A loaded model: its tensors, and which of them have a row per token."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokswap.evaluation.models import input_embeddings


@dataclass(frozen=True)
class Weights:
    """A model as transformers loads it.

    Attributes:
        model: The model.
        missing: The tensors that its files lack.
        mismatched: The tensors whose shapes do not fit.
    """

    model: Any
    missing: frozenset[str] = frozenset()
    mismatched: tuple[str, ...] = ()

    @cached_property
    def tensors(self) -> dict[str, Any]:
        """Name -> tensor, tied ones under each of their names."""
        return dict(self.model.state_dict())

    @cached_property
    def embeddings(self) -> dict[str, Any]:
        """The matrices with a row per token that the model itself names: "input", and "output" where it is another."""
        found = {"input": input_embeddings(self.model)}
        found["output"] = getattr(self.model, "get_output_embeddings", lambda: None)()
        weights = {role: module.weight for role, module in found.items() if module is not None}
        if "output" in weights and weights["output"].data_ptr() == weights["input"].data_ptr():
            del weights["output"]
        return weights

    @property
    def rows(self) -> int:
        """Rows of the input embeddings."""
        return int(self.embeddings["input"].shape[0])

    def token_axis(self, name: str, rows: int) -> int | None:
        """Return the axis of a tensor that counts tokens, None where it has none or the config explains its size.

        Args:
            name: Name of the tensor.
            rows: Number of tokens.
        """
        tensor = self.tensors[name]
        axes = [axis for axis, size in enumerate(tensor.shape) if size == rows]
        if not axes:
            return None
        head = getattr(self.model, "get_output_embeddings", lambda: None)()
        known = [*self.embeddings.values(), getattr(head, "bias", None)]
        if any(one is not None and one.data_ptr() == tensor.data_ptr() for one in known):
            return axes[0]
        return None if self._explained(rows) else axes[0]

    def _explained(self, size: int) -> bool:
        """Whether another number of the config equals the number of rows."""
        text = self.model.config.to_json_string(use_diff=False)
        keys = re.findall(rf'"(\w+)": {size}\b', text)
        return any("vocab" not in key and not key.endswith(("_token_id", "_token_index")) for key in keys)
