"""The loss of healing: KL divergence from the teacher's projected distribution, plus cross-entropy on the text.

`FusedLoss` computes logits, loss and gradients of the lm_head together, for one block of the vocabulary after another,
so that a vocabulary of 262k tokens needs the memory of one block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from tokswap.heal.heads import HeadForm

BLOCK_ELEMENTS = 4 << 20
"""Logits that are computed at once."""
_TINY = 1e-6


@dataclass(frozen=True)
class Wanted:
    """What a model should predict at some positions.

    Attributes:
        tokens: The real tokens, int64 [n].
        ids: Tokens of the target distribution, int64 [n, T]; any id where the probability is 0.
        probabilities: Their probabilities, float32 [n, T]. What they lack to one is for all other tokens together.
    """

    tokens: torch.Tensor
    ids: torch.Tensor
    probabilities: torch.Tensor

    def compared(self, picked: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compare predictions with the targets. All tokens that are no target count as one.

        Args:
            picked: Log-probabilities of the targets as they are predicted, [n, T].

        Returns:
            The KL divergence of each position [n]; the probabilities of the targets as they are predicted, 0 where
            there is no target [n, T]; and for all other tokens together the ratio of the wanted and the predicted
            probability [n, 1].
        """
        wanted = self.probabilities
        predicted = picked.exp() * (wanted > 0)
        rest = (1 - wanted.sum(1, keepdim=True)).clamp_min(0)
        others = (1 - predicted.sum(1, keepdim=True)).clamp_min(_TINY)
        known = (torch.xlogy(wanted, wanted) - wanted * picked).sum(1)
        unknown = (torch.xlogy(rest, rest) - rest * others.log()).sum(1)
        return known + unknown, predicted, rest / others


@dataclass(frozen=True)
class Weights:
    """Weights of the two parts of the loss."""

    kl: float = 1.0
    cross_entropy: float = 1.0


class FusedLoss(torch.autograd.Function):
    """The weighted sum of the KL divergence and the cross-entropy, from hidden states and the lm_head.

    The forward pass computes the gradients too. It computes logits twice, once for the sum of their exponentials and
    once for the gradients: to keep them takes too much memory, and to add up gradients of the whole lm_head for one
    block of positions after another takes longer than the second product.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, head: torch.Tensor, wanted: Wanted, weights: Weights, form: HeadForm
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compute the loss.

        Args:
            ctx: Keeps the gradients.
            hidden: Final hidden states, [n, D].
            head: The lm_head, [V, D].
            wanted: What should be predicted.
            weights: Weights of both parts.
            form: How logits follow from them.

        Returns:
            The loss, the KL divergence and the cross-entropy, in nats, each the mean over positions.
        """
        blocks = _Blocks(hidden, head, form)
        places = torch.cat([wanted.tokens[:, None], wanted.ids], 1)
        picked, total = blocks.picked(places)
        scores = picked - total
        divergence, predicted, ratio = wanted.compared(scores[:, 1:])
        if any(ctx.needs_input_grad[:2]):
            # The gradient is the factor times each probability, and something more at the places.
            factor = weights.kl * (1 - ratio) + weights.cross_entropy
            real = torch.full_like(ratio, -weights.cross_entropy)
            more = torch.cat([real, weights.kl * (predicted * ratio - wanted.probabilities)], 1)
            ctx.save_for_backward(*blocks.gradients(total, factor, places, more))
        ctx.dtype = head.dtype
        kl, cross = divergence.mean(), -scores[:, 0].mean()
        ctx.mark_non_differentiable(kl, cross)
        return weights.kl * kl + weights.cross_entropy * cross, kl, cross

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """Return the gradients of the hidden states and of the lm_head."""
        d_hidden, d_head = ctx.saved_tensors
        by = gradients[0]
        # In place: a second matrix of this size takes longer than all else here.
        return d_hidden.mul_(by), d_head.mul_(by).to(ctx.dtype), None, None, None


class _Blocks:
    """The logits of some positions, for one block of the vocabulary after another."""

    def __init__(self, hidden: torch.Tensor, head: torch.Tensor, form: HeadForm) -> None:
        self.hidden, self.form = hidden, form
        self.head = head.to(hidden.dtype)
        size = max(1, BLOCK_ELEMENTS // max(len(hidden), 1))
        self.parts = [slice(at, min(at + size, len(head))) for at in range(0, len(head), size)]

    def logits(self, part: slice) -> torch.Tensor:
        """Return the logits of a block, float32 [n, block]."""
        return self.form.apply((self.hidden @ self.head[part].T).float(), part)

    def picked(self, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits at some ids [n, P], and the logarithm of the sum of all exponentials [n, 1]."""
        count = len(self.hidden)
        found = torch.zeros(places.shape, device=places.device)
        most = torch.full((count, 1), -torch.inf, device=places.device)
        mass = torch.zeros_like(most)
        for part in self.parts:
            logits = self.logits(part)
            here, inside = _local(places, part)
            found = torch.where(inside, logits.gather(1, here), found)
            higher = torch.maximum(most, logits.amax(1, keepdim=True))
            mass = mass * (most - higher).exp() + logits.sub_(higher).exp_().sum(1, keepdim=True)
            most = higher
        return found, most + mass.log()

    def gradients(
        self, total: torch.Tensor, factor: torch.Tensor, places: torch.Tensor, more: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the gradients of the hidden states [n, D] and of the lm_head, float32 [V, D].

        Args:
            total: Logarithm of the sum of all exponentials, [n, 1].
            factor: What the probability of every token counts, [n, 1].
            places: Ids with more gradient than that, int64 [n, P].
            more: How much more, [n, P].
        """
        d_hidden = torch.zeros_like(self.hidden, dtype=torch.float32)
        d_head = torch.empty_like(self.head, dtype=torch.float32)
        for part in self.parts:
            logits = self.logits(part)
            here, inside = _local(places, part)
            gradient = (logits - total).exp_().mul_(factor).scatter_add_(1, here, more * inside)
            gradient = self.form.back(gradient, logits).div_(len(logits)).to(self.hidden.dtype)
            d_hidden += gradient @ self.head[part]
            d_head[part] = gradient.T @ self.hidden
        return d_hidden.to(self.hidden.dtype), d_head


def _local(places: torch.Tensor, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where ids are in a block of the vocabulary, and which of them are."""
    inside = (places >= part.start) & (places < part.stop)
    return (places - part.start).clamp_(0, part.stop - part.start - 1), inside


def plain_loss(logits: torch.Tensor, wanted: Wanted, weights: Weights) -> tuple[torch.Tensor, ...]:
    """Return what `FusedLoss` does, from logits [n, V] that the model itself has computed."""
    scores = logits.float().log_softmax(1)
    kl = wanted.compared(scores.gather(1, wanted.ids))[0].mean()
    cross = -scores.gather(1, wanted.tokens[:, None]).mean()
    return weights.kl * kl + weights.cross_entropy * cross, kl.detach(), cross.detach()
