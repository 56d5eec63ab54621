"""Logits of many positions, for one block of the vocabulary after another, so that they need the memory of one block.

A product with a block of the lm_head reads that block once for all positions, and the whole lm_head for a few positions
at a time would be read again for each few.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tokswap.heal.heads import HeadForm

BLOCK_ELEMENTS = 4 << 20
"""Logits that are computed at once."""


@dataclass(frozen=True)
class Picked:
    """Some logits of each position, and what makes probabilities of them.

    Attributes:
        logits: Those of the ids that were asked for, float32 [n, P].
        total: Logarithm of the sum of the exponentials of all logits, float32 [n, 1].
        best: The greatest logits, float32 [n, K], greatest first.
        best_ids: Their ids, int64 [n, K].
    """

    logits: torch.Tensor
    total: torch.Tensor
    best: torch.Tensor
    best_ids: torch.Tensor


class Logits:
    """The logits of some positions.

    Attributes:
        hidden: Final hidden states, [n, D].
        head: The lm_head in their dtype, [V, D].
        form: How logits follow from the two.
        parts: The blocks of the vocabulary.
    """

    def __init__(self, hidden: torch.Tensor, head: torch.Tensor, form: HeadForm) -> None:
        """Divide the vocabulary into blocks."""
        self.hidden, self.form = hidden, form
        self.head = head.to(hidden.dtype)
        size = max(1, BLOCK_ELEMENTS // max(len(hidden), 1))
        self.parts = [slice(at, min(at + size, len(head))) for at in range(0, len(head), size)]

    def of(self, part: slice) -> torch.Tensor:
        """Return the logits of a block, float32 [n, block]."""
        return self.form.apply((self.hidden @ self.head[part].T).float(), part)

    def picked(self, places: torch.Tensor, top: int = 0) -> Picked:
        """Return some logits of each position.

        Args:
            places: Ids, int64 [n, P].
            top: How many of the greatest logits to return besides.
        """
        found = torch.zeros(places.shape, device=places.device)
        most = torch.full((len(self.hidden), 1), -torch.inf, device=places.device)
        mass = torch.zeros_like(most)
        best, best_ids = most[:, :0], places[:, :0]
        for part in self.parts:
            logits = self.of(part)
            here, inside = local(places, part)
            found = torch.where(inside, logits.gather(1, here), found)
            if top:
                values, ids = logits.topk(min(top, logits.shape[1]), dim=1)
                values, ids = torch.cat([best, values], 1), torch.cat([best_ids, ids + part.start], 1)
                best, order = values.topk(min(top, values.shape[1]), dim=1)
                best_ids = ids.gather(1, order)
            higher = torch.maximum(most, logits.amax(1, keepdim=True))
            mass = mass * (most - higher).exp() + logits.sub_(higher).exp_().sum(1, keepdim=True)
            most = higher
        return Picked(found, most + mass.log(), best=best, best_ids=best_ids)


def local(places: torch.Tensor, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where ids are in a block of the vocabulary, and which of them are."""
    inside = (places >= part.start) & (places < part.stop)
    return (places - part.start).clamp_(0, part.stop - part.start - 1), inside
