"""How well each member has predicted the text so far: what the weights of an adaptive mix follow."""

from __future__ import annotations

from collections.abc import Callable

import torch

DECAY, STRENGTH = 0.95, 0.1
"""What a token counts one token later, and the share of its log-probability that moves the weights: chosen by text."""
HORIZON = 128
"""Tokens that count. Those before them have less than 0.2 % of the weight of the last one."""
_LEAST = -30.0
"""A token that a member gives no chance counts as this, so that the member is not out for good."""
_CROPPED = 32
"""Most tokens that a draft proposes and the cache loses again."""


class Track:
    """How well one member has predicted the tokens so far. Operations of a cache move it with the member's own."""

    def __init__(self) -> None:
        self._known: torch.Tensor | None = None  # log-probabilities of all tokens so far, [B, t]
        self._after: list[torch.Tensor] = []  # what the member predicted after the last of them, each [B, q, V]

    def read(self, ids: torch.Tensor, predicted: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Take the next tokens.

        Args:
            ids: The tokens, int64 [B, n].
            predicted: Log-probabilities after each of the last m of them, [B, m, V].
            real: Whether a token and the one before it are text, not padding, bool [B, n].

        Returns:
            The evidence after each of the last m tokens, [B, m]: the sum of the log-probabilities of the tokens up to
            there, each times `DECAY` to the power of its distance.
        """
        kept = predicted.shape[1]
        scores = predicted.new_zeros(ids.shape)
        if kept > 1:
            scores[:, 1 - kept :] = predicted[:, :-1].gather(-1, ids[:, 1 - kept :, None]).squeeze(-1)
        if self._after:
            scores[:, 0] = self._after[-1][:, -1].gather(-1, ids[:, :1]).squeeze(-1)
        scores = scores.clamp(min=_LEAST).where(real, 0.0)
        self._known = scores if self._known is None else torch.cat([self._known, scores], 1)
        self._after.append(predicted[:, -_CROPPED:].clone())
        while sum(one.shape[1] for one in self._after[1:]) >= _CROPPED:
            del self._after[0]
        windows = torch.nn.functional.pad(self._known, (HORIZON, 0)).unfold(1, HORIZON, 1)[:, -kept:]
        powers = DECAY ** torch.arange(HORIZON, 0, -1, device=ids.device, dtype=predicted.dtype)
        return windows @ powers

    def crop(self, tokens: int) -> None:
        """Forget the last tokens."""
        if self._known is None or not tokens:
            return
        self._known = self._known[:, :-tokens]
        while tokens and self._after:
            last = self._after.pop()
            if last.shape[1] > tokens:
                self._after.append(last[:, :-tokens])
            tokens = max(tokens - last.shape[1], 0)

    def select(self, rows: torch.Tensor) -> None:
        """Keep some rows of the batch."""
        self._change(lambda one: one.index_select(0, rows.to(one.device)))

    def repeat(self, times: int) -> None:
        """Repeat each row of the batch."""
        self._change(lambda one: one.repeat_interleave(times, dim=0))

    def reset(self) -> None:
        """Forget all tokens."""
        self._known, self._after = None, []

    def _change(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        if self._known is not None:
            self._known, self._after = change(self._known), [change(one) for one in self._after]


def texts_of(ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return whether each token and the one before it are text, bool [B, n].

    Args:
        ids: The tokens, int64 [B, n].
        mask: 1 for text and 0 for padding, of all tokens so far; None where all are text.
    """
    if mask is None or mask.dim() != 2:
        return torch.ones_like(ids, dtype=torch.bool)
    both = torch.nn.functional.pad(mask.bool(), (1, 0), value=True)
    return both[:, -ids.shape[1] :] & both[:, -ids.shape[1] - 1 : -1]
