"""The loss of healing: KL divergence from the teacher's projected distribution, plus cross-entropy on the text.

`FusedLoss` computes logits, loss and gradients of the lm_head together, for one block of the vocabulary after another,
so that a vocabulary of 262k tokens needs the memory of one block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from tokswap.heal.heads import HeadForm
from tokswap.heal.logits import Logits, local

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
        logits = Logits(hidden, head, form)
        places = torch.cat([wanted.tokens[:, None], wanted.ids], 1)
        picked = logits.picked(places)
        scores = picked.logits - picked.total
        divergence, predicted, ratio = wanted.compared(scores[:, 1:])
        if any(ctx.needs_input_grad[:2]):
            # The gradient is the factor times each probability, and something more at the places.
            factor = weights.kl * (1 - ratio) + weights.cross_entropy
            real = torch.full_like(ratio, -weights.cross_entropy)
            more = torch.cat([real, weights.kl * (predicted * ratio - wanted.probabilities)], 1)
            ctx.save_for_backward(*_gradients(logits, picked.total, factor, places, more))
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


def _gradients(
    logits: Logits, total: torch.Tensor, factor: torch.Tensor, places: torch.Tensor, more: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients of the hidden states [n, D] and of the lm_head, float32 [V, D].

    Args:
        logits: The logits.
        total: Logarithm of the sum of all exponentials, [n, 1].
        factor: What the probability of every token counts, [n, 1].
        places: Ids with more gradient than that, int64 [n, P].
        more: How much more, [n, P].
    """
    d_hidden = torch.zeros_like(logits.hidden, dtype=torch.float32)
    d_head = torch.empty_like(logits.head, dtype=torch.float32)
    for part in logits.parts:
        block = logits.of(part)
        here, inside = local(places, part)
        gradient = (block - total).exp_().mul_(factor).scatter_add_(1, here, more * inside)
        gradient = logits.form.back(gradient, block).div_(len(block)).to(logits.hidden.dtype)
        d_hidden += gradient @ logits.head[part]
        d_head[part] = gradient.T @ logits.hidden
    return d_hidden.to(logits.hidden.dtype), d_head


def plain_loss(logits: torch.Tensor, wanted: Wanted, weights: Weights) -> tuple[torch.Tensor, ...]:
    """Return what `FusedLoss` does, from logits [n, V] that the model itself has computed."""
    scores = logits.float().log_softmax(1)
    kl = wanted.compared(scores.gather(1, wanted.ids))[0].mean()
    cross = -scores.gather(1, wanted.tokens[:, None]).mean()
    return weights.kl * kl + weights.cross_entropy * cross, kl.detach(), cross.detach()
