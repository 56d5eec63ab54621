"""Which layers a LoRA adapter changes, and what it leaves as it is. A model without weights (device `meta`) will do."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import Embedding, Linear, Parameter
from transformers.pytorch_utils import Conv1D

from tokswap.errors import InputError
from tokswap.heal.options import HealOptions

_LEAST_SHARE = 0.1
"""Share of the body that may stay as it is without a note."""
_STATE_SPACE = {"A_log", "D"}
"""Parameters of a state-space block, whose kernels read `out_proj` and `conv1d` without calling these layers."""


@dataclass(frozen=True)
class Reach:
    """What a LoRA adapter can change.

    Attributes:
        layers: Names of the layers that it changes.
        sides: Inputs and outputs of these layers, summed: its numbers at rank 1.
        left: Kind of weight -> numbers of the body that it leaves as they are, the largest first. In the name of a
            kind `*` stands for the number of a layer.
        body: Numbers of the body.
    """

    layers: tuple[str, ...]
    sides: int
    left: dict[str, int]
    body: int

    @property
    def share(self) -> float:
        """The share of the body that it leaves as it is."""
        return sum(self.left.values()) / max(self.body, 1)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        if self.share < _LEAST_SHARE:
            return ()
        names = ", ".join([*self.left][:3])
        return (
            f"a LoRA adapter fits plain linear layers: {self.share:.0%} of the body stays as it is ({names}); "
            "--train full trains it too",
        )


def reach_of(model: Any) -> Reach:
    """Find the layers of a transformers model that a LoRA adapter changes: its linear layers but the lm_head.

    A layer is left out if its class computes something else than a linear layer does (a router that is one by
    inheritance), if another layer has the same weight (a change of one could not be written), or if PEFT does not
    take it or cannot load what it saves of it: output projections of state-space blocks, and layers named like the
    experts that transformers has fused.
    """
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    own = {id(one) for end in ends if end is not None for one in end.parameters()}
    users = Counter(id(one) for _, one in _uses(model))
    blocks = {f"{name}.out_proj" for name, one in model.named_modules() if set(one._parameters) >= _STATE_SPACE}
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        if not isinstance(module, (Linear, Conv1D)) or name in blocks or not _is_linear(module):
            continue
        if id(module.weight) not in own and users[id(module.weight)] == 1:
            found[name] = module
    kept = _taken_by_peft(found, model)
    taken = {id(found[name].weight) for name in kept}
    left: Counter[str] = Counter()
    body = 0
    for name, one in model.named_parameters():
        if id(one) in own:
            continue
        body += one.numel()
        if id(one) not in taken:
            left[re.sub(r"\.\d+(?=\.)", ".*", name)] += one.numel()
    sides = sum(sum(found[name].weight.shape) for name in kept)
    return Reach(layers=tuple(kept), sides=sides, left=dict(left.most_common()), body=body)


def check_parts(model: Any, reach: Reach, train: str) -> None:
    """Check that a model has what is to be trained.

    Args:
        model: A causal language model.
        reach: What an adapter can change of it.
        train: What learns, as `--train` says.

    Raises:
        InputError: no-lora-targets, no-plain-embeddings.
    """
    name, head = type(model).__name__, model.get_output_embeddings()
    if not isinstance(model.get_input_embeddings(), Embedding) or head is None or not hasattr(head, "weight"):
        raise InputError(
            "no-plain-embeddings",
            f"the embeddings of {name} are not a plain matrix, so they cannot be trained",
            "heal models whose embeddings and lm_head are plain matrices",
        )
    if train == "adapter" and not reach.layers:
        raise InputError(
            "no-lora-targets",
            f"{name} has no linear layers that a LoRA adapter could change",
            "use --train embeddings, or --train full",
        )


def with_adapter(model: Any, reach: Reach, options: HealOptions) -> Any:
    """Return the PEFT model that adds an adapter to the layers that it can change."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.rank,
        target_modules=list(reach.layers),
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT uses what transformers deprecates
        return get_peft_model(model, config)


def _uses(model: Any) -> list[tuple[str, Parameter]]:
    """Return every weight as often as modules have it."""
    return [(name, one) for module in model.modules() for name, one in module._parameters.items() if one is not None]


@torch.no_grad()
def _is_linear(module: Any) -> bool:
    """Whether a linear layer, or one of a class of its own, makes a row of a row."""
    if type(module).forward in (Linear.forward, Conv1D.forward):
        return True
    rows, columns = module.weight.shape if isinstance(module, Linear) else module.weight.shape[::-1]
    try:
        found = module(torch.zeros(1, columns, dtype=module.weight.dtype, device=module.weight.device))
    except Exception:  # it wants other inputs
        return False
    return isinstance(found, torch.Tensor) and found.shape == (1, rows)


def _taken_by_peft(layers: dict[str, Any], model: Any) -> list[str]:
    """Return the names of the layers that PEFT changes, and loads again from its files.

    Where transformers has fused the experts of a model, PEFT takes names such as `gate_proj` for those of experts, in
    its config and in its files.
    """
    try:
        from peft.utils.transformers_weight_conversion import (
            convert_peft_adapter_state_dict_for_transformers,
            convert_peft_config_for_transformers,
        )
    except ImportError:  # releases for transformers 4, whose experts are layers
        return list(layers)
    from peft import LoraConfig

    probe = LoraConfig(target_modules=sorted({_leaf(name) for name in layers}))
    convert_peft_config_for_transformers(probe, model, None)
    taken = [name for name in layers if _leaf(name) in (probe.target_modules or ())]
    keys = {name: [f"base_model.model.{name}.lora_{half}.weight" for half in "AB"] for name in taken}
    state = {key: torch.zeros(1, 1, device="meta") for pair in keys.values() for key in pair}
    loaded = convert_peft_adapter_state_dict_for_transformers(model, probe, state)
    return [name for name in taken if all(key in loaded for key in keys[name])]


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]
