"""A model without weights, to learn its layers and their names."""

from __future__ import annotations

from typing import Any

import torch

from tokswap.checkpoint.matrices import role_by_name
from tokswap.checkpoint.reader import Checkpoint


def skeleton(folder: Any, *, trust_remote_code: bool) -> Any | None:
    """Return a model without weights, of the class that loads a folder; None where it cannot be made so."""
    from transformers import AutoConfig, AutoModelForCausalLM

    trust = {"trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, **trust)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, **trust)
    except Exception:  # whatever the model's own code raises; the run loads it, and says what is wrong
        return None


def input_name(checkpoint: Checkpoint) -> str | None:
    """Return the tensor name of the input embeddings of a tied model that stores its one matrix as lm_head.

    Args:
        checkpoint: The model.

    Returns:
        The name in its class, None where the class cannot be asked or names other tensors than the files do.
    """
    model = skeleton(checkpoint.folder, trust_remote_code=False) if checkpoint.on_disk else None
    if model is None or not checkpoint.tensors.keys() <= model.state_dict().keys():
        return None
    weight = model.get_input_embeddings().weight
    names = (name for name, one in model.named_parameters(remove_duplicate=False) if one is weight)
    return next((name for name in names if role_by_name(name) != "output"), None)
