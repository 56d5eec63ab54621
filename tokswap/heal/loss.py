"""The loss of healing: KL divergence from the teacher's projected distribution, plus cross-entropy on the text.

`FusedLoss` computes logits, loss and gradients of the lm_head in chunks, once a step, so that a vocabulary of 262k
tokens needs the memory of one chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from tokswap.heal.heads import HeadForm

CHUNK_ELEMENTS = 8 << 20
"""Logits of a chunk."""
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

    def part(self, part: slice) -> Wanted:
        """Return what is wanted at some of the positions."""
        return Wanted(self.tokens[part], self.ids[part], self.probabilities[part])

    def compared(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compare predictions with the targets. All tokens that are no target count as one.

        Args:
            scores: Log-probabilities, [n, V].

        Returns:
            The KL divergence of each position [n]; the probabilities of the targets as they are predicted [n, T]; and
            for all other tokens together the ratio of the wanted and the predicted probability [n, 1].
        """
        wanted = self.probabilities
        picked = scores.gather(1, self.ids)
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

    The forward pass computes the gradients too, so that logits are computed once and never kept.
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
        low = head.to(hidden.dtype)
        count, size = len(hidden), max(1, CHUNK_ELEMENTS // len(head))
        sums = torch.zeros(2, dtype=torch.float64, device=hidden.device)
        needs = (ctx.needs_input_grad[0], ctx.needs_input_grad[1])
        d_hidden = torch.empty_like(hidden) if needs[0] else None
        d_head = torch.zeros_like(head, dtype=torch.float32) if needs[1] else None
        for start in range(0, count, size):
            part = slice(start, start + size)
            inputs = hidden[part]
            logits = form.apply((inputs @ low.T).float())
            goal = wanted.part(part)
            scores = logits - logits.logsumexp(1, keepdim=True)
            divergence, predicted, ratio = goal.compared(scores)
            sums[0] += divergence.sum()
            sums[1] -= scores.gather(1, goal.tokens[:, None]).sum()
            if d_hidden is None and d_head is None:
                continue
            gradient = scores.exp_().mul_(weights.kl * (1 - ratio) + weights.cross_entropy)
            gradient.scatter_add_(1, goal.ids, weights.kl * (predicted * ratio - goal.probabilities))
            gradient.scatter_add_(1, goal.tokens[:, None], gradient.new_full((len(inputs), 1), -weights.cross_entropy))
            gradient = form.back(gradient, logits).div_(count).to(hidden.dtype)
            if d_hidden is not None:
                d_hidden[part] = gradient @ low
            if d_head is not None:
                d_head += gradient.T @ inputs
        ctx.save_for_backward(d_hidden, d_head)
        ctx.dtype = head.dtype
        kl, cross = sums.float() / max(count, 1)
        ctx.mark_non_differentiable(kl, cross)
        return weights.kl * kl + weights.cross_entropy * cross, kl, cross

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """Return the gradients of the hidden states and of the lm_head."""
        d_hidden, d_head = ctx.saved_tensors
        by = gradients[0]
        return (
            None if d_hidden is None else d_hidden * by.to(d_hidden.dtype),
            None if d_head is None else (d_head * by).to(ctx.dtype),
            None,
            None,
            None,
        )


def plain_loss(logits: torch.Tensor, wanted: Wanted, weights: Weights) -> tuple[torch.Tensor, ...]:
    """Return what `FusedLoss` does, from logits [n, V] that the model itself has computed."""
    scores = logits.float().log_softmax(1)
    kl = wanted.compared(scores)[0].mean()
    cross = -scores.gather(1, wanted.tokens[:, None]).mean()
    return weights.kl * kl + weights.cross_entropy * cross, kl.detach(), cross.detach()
