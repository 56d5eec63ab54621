"""The loss against a part of the vocabulary, beside the loss against all of it."""

from __future__ import annotations

import torch

from tokswap.heal.heads import HeadForm
from tokswap.heal.loss import FusedLoss, Wanted, Weights
from tokswap.heal.negatives import sampled

V, D, N = 4000, 16, 24


def gradients(
    head: torch.Tensor, hidden: torch.Tensor, wanted: Wanted, form: HeadForm, count: int
) -> list[torch.Tensor]:
    rows, goal, form = sampled(head, wanted, form, count)
    loss = FusedLoss.apply(hidden, rows, goal, Weights(1.0, 0.2), form)[0]  # type: ignore[no-untyped-call]
    return [loss.detach(), *torch.autograd.grad(loss, (hidden, head))]


def problem() -> tuple[torch.Tensor, torch.Tensor, Wanted, HeadForm]:
    torch.manual_seed(0)
    head, hidden = torch.randn(V, D, requires_grad=True), (0.3 * torch.randn(N, D)).requires_grad_()
    ids, probabilities = torch.randint(V, (N, 5)), torch.rand(N, 5)
    probabilities[:, -1], ids[:, -1] = 0, 0  # fewer targets than places
    probabilities *= 0.8 / probabilities.sum(1, keepdim=True)
    return head, hidden, Wanted(torch.randint(V, (N,)), ids, probabilities), HeadForm(bias=torch.randn(V))


def test_it_is_the_whole_loss_on_average() -> None:
    given = problem()
    whole = gradients(*given, count=V)
    assert torch.equal(whole[1], gradients(*given, count=V)[1]), "most of the vocabulary: nothing is drawn"
    draws = [gradients(*given, count=900) for _ in range(60)]
    assert not torch.equal(draws[0][1], draws[1][1])
    for n, exact in enumerate(whole):
        mean = torch.stack([draw[n] for draw in draws]).mean(0)
        assert float((mean - exact).norm() / exact.norm()) < 0.12, ("loss", "hidden", "head")[n]


def test_targets_are_compared_exactly() -> None:
    head, _, wanted, form = problem()
    rows, goal, part = sampled(head, wanted, form, 900)
    assert len(rows) < V / 3
    assert torch.equal(rows[goal.tokens], head[wanted.tokens])
    told = wanted.probabilities > 0
    assert torch.equal(rows[goal.ids[told]], head[wanted.ids[told]])
    assert part.bias is not None
    assert part.shift is not None
    assert form.bias is not None
    assert torch.equal(part.bias[goal.tokens], form.bias[wanted.tokens])
    assert not part.shift[goal.tokens].any()
    others = V - len(torch.unique(torch.cat([wanted.tokens, wanted.ids[told]])))
    assert torch.isclose(part.shift.exp()[part.shift > 0].sum(), torch.tensor(float(others)), rtol=1e-4)
