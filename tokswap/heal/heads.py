"""How a causal language model makes logits of its hidden states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class HeadForm:
    """How logits follow from the product of hidden states and lm_head.

    Attributes:
        bias: Bias of the lm_head, float32 [V], or None.
        softcap: Limit of a tanh around the logits (Gemma-2), or None.
        scale: Factor of the logits (Cohere, Granite).
    """

    bias: torch.Tensor | None = None
    softcap: float | None = None
    scale: float = 1.0

    def apply(self, logits: torch.Tensor, part: slice = slice(None)) -> torch.Tensor:
        """Return the final logits; changes those that it gets. part: the block of the vocabulary that they are of."""
        if self.bias is not None:
            logits += self.bias[part].to(logits.dtype)
        if self.scale != 1.0:
            logits *= self.scale
        return logits if self.softcap is None else logits.div_(self.softcap).tanh_().mul_(self.softcap)

    def back(self, gradient: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Turn the gradient of the final logits into that of the plain ones; changes it."""
        if self.softcap is not None:
            gradient *= 1 - (logits / self.softcap) ** 2
        return gradient if self.scale == 1.0 else gradient.mul_(self.scale)


def hidden_states(causal: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the hidden states that the lm_head reads, [B, n, D].

    Args:
        causal: A transformers model with an lm_head.
        ids: Tokens, int64 [B, n].
        mask: 1 for a token and 0 for padding, int64 [B, n].
    """
    found: torch.Tensor = causal.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return found


@torch.no_grad()
def find_form(causal: Any) -> HeadForm | None:
    """Find how logits follow from hidden states by trying it on some tokens; None where they follow in another way."""
    config, head = causal.config.get_text_config(), causal.get_output_embeddings()
    if causal.base_model is causal or head is None or not hasattr(head, "weight"):
        return None
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1.0)
    form = HeadForm(getattr(head, "bias", None), getattr(config, "final_logit_softcapping", None), float(scale))
    ids = torch.arange(1, 5, device=head.weight.device)[None]
    mask = torch.ones_like(ids)
    own = causal(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
    try:
        hidden = hidden_states(causal, ids, mask)
    except AttributeError:  # an adapter lies around the model, and its body gives logits
        return None
    if hidden.shape[-1] != head.weight.shape[1]:
        return None
    again = form.apply((hidden.to(head.weight.dtype) @ head.weight.T).float())
    close = own.shape == again.shape and torch.allclose(own, again, rtol=0.02, atol=0.02 * float(own.std()))
    return form if close else None
