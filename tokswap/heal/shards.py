"""Divides the frozen layers of a body among processes, for models that no device holds whole.

Each process keeps a part of every weight of every layer. A layer's weights are gathered when it computes, and dropped
again (FSDP2 of torch). All else stays whole in each process: embeddings, lm_head, and the adapter, whose gradients are
averaged as in plain data parallelism. So the optimiser, checkpoints and the result know nothing of the division.

Reference: Zhao et al. 2023, PyTorch FSDP (arXiv 2304.11277); `torch.distributed.fsdp.fully_shard`.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import Module, ModuleList

from tokswap.errors import InputError
from tokswap.heal.team import Team


def can_divide() -> bool:
    """Whether torch divides some weights of a module and leaves others whole; early releases of FSDP2 cannot."""
    try:
        from torch.distributed.fsdp import fully_shard
    except ImportError:
        return False
    return "ignored_params" in inspect.signature(fully_shard).parameters


def load_divided(read: Callable[[], Any], team: Team, device: str) -> Any:
    """Load a model in every process, and keep a part of its layers.

    Processes load one after the other, so the main memory holds one whole model at a time.

    Args:
        read: Loads the whole model into main memory.
        team: The processes.
        device: Where each computes.

    Returns:
        The model, on its device. Every process has to call it equally often.

    Raises:
        InputError: cannot-divide.
    """
    with team.in_turn():
        model = read()
        divide(model, team, device)
    return model.to(device)


def divide(model: Any, team: Team, device: str) -> None:
    """Divide the weights of the layers of a transformers model among processes.

    Args:
        model: A whole model in main memory, which is changed.
        team: The processes.
        device: Where each computes.

    Raises:
        InputError: cannot-divide where it has no layers, or layers share weights.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    layers = layers_of(model)
    users = Counter(id(one) for layer in layers for one in layer.parameters())
    if not layers or max(users.values(), default=0) > 1:
        why = "layers share weights" if layers else "it has no list of layers"
        raise InputError(
            "cannot-divide",
            f"the body of {type(model).__name__} cannot be divided among processes: {why}",
            "leave out --shard; --dtype bfloat16 and --gradient-checkpointing need less memory too",
        )
    team.state()
    mesh = init_device_mesh(torch.device(device).type, (team.size,))
    for layer in layers:
        numbers = {one for one in layer.parameters() if not one.ndim}  # a number cannot be divided
        fully_shard(layer, mesh=mesh, ignored_params=numbers)
    # With the body around them, the weights of the next layer come while one computes.
    whole = {one for one in model.parameters() if not is_divided(one)}
    fully_shard(model.base_model, mesh=mesh, ignored_params=whole)


def layers_of(model: Module) -> list[Module]:
    """Return the layers of a model: the items of its lists of modules that lie in no other list."""
    found: list[Module] = []
    for child in model.children():
        found += list(child) if isinstance(child, ModuleList) else layers_of(child)
    return found


def is_divided(weight: Any) -> bool:
    """Whether a process has a part of a weight only."""
    from torch.distributed.tensor import DTensor

    return isinstance(weight, DTensor)


def divided_names(module: Module) -> list[str]:
    """Return the names of the weights that processes have parts of."""
    return [name for name, one in module.named_parameters() if is_divided(one)]
