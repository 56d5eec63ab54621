"""The model in training: which of its weights learn, and its loss on a batch.

The body keeps its weights; PEFT adds a LoRA adapter to every linear layer. Embeddings and lm_head learn as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import Embedding, Module, Parameter

from tokswap.heal.adapter import Reach, check_parts, reach_of, with_adapter
from tokswap.heal.heads import find_form, hidden_states
from tokswap.heal.loss import FusedLoss, Wanted, Weights, plain_loss
from tokswap.heal.options import HealOptions
from tokswap.heal.shards import divided_names


class Student(Module):
    """A causal language model that learns to predict what its teacher does.

    Attributes:
        causal: The transformers model, with the adapter in its layers.
        adapted: The PEFT model around it, None without an adapter.
        full: Whether the whole body learns.
        weights: Weights of the parts of the loss.
        new: The rows that learn, int64 [n]; None where all do.
        form: How logits follow from hidden states; None where the model must compute them itself.
        autocast: Whether float32 weights compute in bfloat16.
    """

    def __init__(
        self,
        model: Any,
        options: HealOptions,
        *,
        reach: Reach | None = None,
        autocast: bool = False,
        new: np.ndarray | None = None,
        fixed: np.ndarray | None = None,
    ) -> None:
        """Choose the weights that learn.

        Args:
            model: The model, which is changed.
            options: What learns, and how.
            reach: What an adapter can change; None to look for it.
            autocast: See `Student`.
            new: The rows that learn, None for all.
            fixed: The rows of a separate lm_head that do not learn, None for none.

        Raises:
            InputError: no-lora-targets, no-plain-embeddings.
        """
        super().__init__()
        reach = reach or reach_of(model)
        check_parts(model, reach, options.train)
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        model.requires_grad_(False)
        self.adapted = with_adapter(model, reach, options) if options.train == "adapter" else None
        self.causal = model
        self.full = options.train == "full"
        self.weights = Weights(options.kl, options.cross_entropy)
        dtype = _body_dtype(model)
        if self.full:
            model.requires_grad_(True)
        for module in (embedding, head):  # rows move by less than bfloat16 resolves
            _as_float32(module, model)
        self.autocast, self.new = autocast, new
        if new is not None:
            for weight in self.matrices():
                weight.register_hook(_only(new, weight))  # type: ignore[no-untyped-call]
        if fixed is not None and len(fixed) and head.weight is not embedding.weight:
            others = np.setdiff1d(np.arange(len(head.weight)), fixed)
            head.weight.register_hook(_only(others, head.weight))
        if dtype != torch.float32:
            for module in _with_weight(model, embedding.weight):
                if isinstance(module, Embedding):
                    module.register_forward_hook(lambda module, given, found: found.to(dtype))
            head.register_forward_pre_hook(lambda module, given: (given[0].to(module.weight.dtype), *given[1:]))
        self.form = find_form(model)
        if options.shard:  # torch's data parallelism leaves these alone
            self._ddp_params_and_buffers_to_ignore = divided_names(self)
        if options.gradient_checkpointing:
            # The old name goes with transformers 6.
            named = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
            enable = next(getattr(model, name) for name in named if hasattr(model, name))
            enable({"use_reentrant": False})

    def learning(self) -> dict[str, Parameter]:
        """Return the weights that learn, by name."""
        return {name: one for name, one in self.named_parameters() if one.requires_grad}

    def matrices(self) -> list[Parameter]:
        """Return the input embeddings, and the lm_head where it is a matrix of its own."""
        own = [self.causal.get_input_embeddings().weight, self.causal.get_output_embeddings().weight]
        return own[:1] if own[0] is own[1] else own

    def forward(
        self, inputs: torch.Tensor, mask: torch.Tensor, rows: torch.Tensor, **wanted: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Compute the loss on a batch.

        Args:
            inputs: Tokens, int64 [B, n].
            mask: 1 for a token and 0 for padding, int64 [B, n].
            rows: Positions whose next token is predicted, as places in the flat batch, int64 [m].
            **wanted: The fields of `Wanted` for these positions.

        Returns:
            loss, kl and cross_entropy.
        """
        goal = Wanted(**wanted)
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.autocast):
            if self.form is not None:
                hidden = hidden_states(self.causal, inputs, mask).flatten(0, 1)[rows]
                head = self.causal.get_output_embeddings().weight
                found = FusedLoss.apply(hidden, head, goal, self.weights, self.form)  # type: ignore[no-untyped-call]
            else:
                logits = self.causal(input_ids=inputs, attention_mask=mask, use_cache=False).logits
                found = plain_loss(logits.flatten(0, 1)[rows], goal, self.weights)
        return dict(zip(("loss", "kl", "cross_entropy"), found, strict=True))


def _only(rows: np.ndarray, weight: Parameter) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a hook that keeps the gradient of some rows. A row without a gradient does not move: nothing decays."""
    mask = torch.zeros(len(weight), 1, device=weight.device)
    mask[torch.from_numpy(rows)] = 1
    return lambda gradient: gradient * mask


def _body_dtype(model: Any) -> torch.dtype:
    """Return the type that most of the body has."""
    own = {
        id(one)
        for module in (model.get_input_embeddings(), model.get_output_embeddings())
        for one in module.parameters()
    }
    found = [one for name, one in model.named_parameters() if id(one) not in own and "lora_" not in name]
    return max(found, key=lambda one: one.numel()).dtype if found else torch.float32


def _with_weight(model: Module, weight: Parameter) -> list[Module]:
    """Return all modules with a weight: some models read and predict with one, and name it in their decoder too."""
    return [module for module in model.modules() if any(one is weight for one in module._parameters.values())]


def _as_float32(module: Module, model: Module) -> None:
    """Give the parameters of a module type float32, everywhere in the model. Of these, only weights learn."""
    for name, one in list(module.named_parameters(recurse=False)):
        new = Parameter(one.detach().float(), requires_grad=name == "weight")
        for user in _with_weight(model, one):
            for key in [key for key, other in user._parameters.items() if other is one]:
                setattr(user, key, new)
