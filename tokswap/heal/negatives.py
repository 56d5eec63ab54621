"""A step of training against a part of the vocabulary: its targets, and some of the other tokens, drawn anew each time.

With 262k tokens most of the work of a small model is its lm_head. The tokens that a step wants are compared exactly.
Some of the others stand for all of them: their logits are raised by the log of how many each stands for, so that the
sum over the vocabulary, and the gradient, are right on average.

Reference:
    arXiv 1412.2007 (importance sampling of the softmax of large vocabularies).
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from tokswap.heal.heads import HeadForm
from tokswap.heal.loss import Wanted


def sampled(head: torch.Tensor, wanted: Wanted, form: HeadForm, count: int) -> tuple[torch.Tensor, Wanted, HeadForm]:
    """Return the rows of an lm_head that a step needs, with targets and form to match.

    Args:
        head: The lm_head, [V, D].
        wanted: What should be predicted.
        form: How logits follow; without a softcap.
        count: How many tokens to draw besides those of the targets. All arguments are returned as they are where these
            would be most of the vocabulary.
    """
    size = len(head)
    exact = torch.zeros(size, dtype=torch.bool, device=head.device)
    exact[wanted.tokens] = True
    exact[wanted.ids[wanted.probabilities > 0]] = True
    own, others = exact.nonzero()[:, 0], (~exact).nonzero()[:, 0]
    if len(own) + count > size // 2:
        return head, wanted, form
    drawn = others[torch.randperm(len(others), device=head.device)[:count]]
    columns = torch.cat([own, drawn])
    place = torch.zeros(size, dtype=torch.int64, device=head.device)
    place[columns] = torch.arange(len(columns), device=head.device)
    shift = torch.zeros(len(columns), device=head.device)
    shift[len(own) :] = math.log(len(others) / max(count, 1))
    bias = form.bias[columns] if form.bias is not None else None
    # An id without probability may stand at any place: it counts for nothing.
    goal = Wanted(place[wanted.tokens], place[wanted.ids], wanted.probabilities)
    return head.index_select(0, columns), goal, replace(form, bias=bias, shift=shift)
