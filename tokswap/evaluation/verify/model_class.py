"""The class that loads a model folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_HEADS = ("MASKED_LM", "SEQUENCE_CLASSIFICATION", "TOKEN_CLASSIFICATION", "QUESTION_ANSWERING")


def model_classes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the classes of transformers that a model folder may be for.

    That is the one that config.json names. Without a name it is the one that generates text. An encoder has several
    heads, or none: its files tell, so the first of these classes counts whose tensors are all there.

    Args:
        config: The parsed config.json.
    """
    from transformers.models.auto import modeling_auto as auto

    if named := config.get("architectures"):
        return (str(named[0]),)
    kind = str(config.get("model_type"))
    if config.get("is_encoder_decoder"):
        return (str(auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.get(kind, "AutoModel")),)
    if kind not in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES or config.get("is_decoder"):
        return (str(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind, "AutoModel")),)
    heads = (getattr(auto, f"MODEL_FOR_{head}_MAPPING_NAMES").get(kind) for head in _HEADS)
    return (*(str(name) for name in heads if name), "AutoModel")
