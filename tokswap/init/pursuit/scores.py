"""Products of residuals and atoms in low precision, and the atoms with the largest ones."""

from __future__ import annotations

import numpy as np
import torch

from tokswap.init.pursuit.nominate import nominate


def low_precision(dictionary: torch.Tensor) -> torch.Tensor:
    """Return the atoms in bfloat16 where the processor multiplies it; elsewhere that is far slower than float32."""
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return dictionary.bfloat16() if known and known() else dictionary


class Scores:
    """Searches atoms for those that correlate most with each residual. The scores only nominate; they enter no result.

    Attributes:
        atoms: [n, D], as `low_precision` gives them.
    """

    def __init__(self, atoms: torch.Tensor) -> None:
        """Take the atoms."""
        self.atoms = atoms
        self._held = atoms.new_empty(0)

    @property
    def bytes_per_residual(self) -> int:
        """Memory of a row of scores; those in float32 are converted."""
        return len(self.atoms) * (2 if self.atoms.dtype == torch.bfloat16 else 6)

    def largest(self, residuals: np.ndarray, most: int) -> np.ndarray:
        """Return the atoms that correlate most with each residual.

        Args:
            residuals: float32 [B, D].
            most: How many atoms; all, if there are fewer.

        Returns:
            Atoms in no order, int32 [B, S].
        """
        shape = (len(residuals), len(self.atoms))
        if self._held.numel() < shape[0] * shape[1]:  # memory that is fresh each time would cost as much as the product
            self._held = self.atoms.new_empty(shape[0] * shape[1])
        scores = self._held[: shape[0] * shape[1]].view(shape)
        torch.matmul(torch.from_numpy(residuals).to(self.atoms.dtype), self.atoms.T, out=scores)
        bits = scores.bfloat16().view(torch.int16).numpy().view(np.uint16)
        shortlist = np.empty((shape[0], min(most, shape[1])), np.int32)
        nominate(bits, bits.reshape(-1)[: bits.size // 4 * 4].view(np.uint64), shortlist)
        return shortlist
