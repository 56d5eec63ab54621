"""What a config says about its model, read once: what it predicts, what it reads, how far, and whose code it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokswap.checkpoint.matrices import configs
from tokswap.errors import InputError

_CAUSAL = ("CausalLM", "LMHeadModel", "ForConditionalGeneration")
_OTHER_MODALITIES = ("vision_config", "audio_config")
_POSITIONS = ("max_position_embeddings", "n_positions")

ModelKind = Literal["causal", "encoder-decoder", "other"]


@dataclass(frozen=True)
class ModelFacts:
    """Facts about a model, from config.json alone.

    Attributes:
        architecture: Class name in transformers, or the model type where the config names no class.
        kind: `causal` where each token is predicted from those before it, `encoder-decoder`, or `other`.
        modalities: Config keys of what the model reads besides text, such as `vision_config`.
        nested: Whether the text model is part of a larger one.
        positions: Longest input in tokens, None where the config sets no limit.
        remote_code: Whether the model names code of its own (`auto_map`).
    """

    architecture: str
    kind: ModelKind
    modalities: frozenset[str]
    nested: bool
    positions: int | None
    remote_code: bool

    @property
    def causal(self) -> bool:
        """Whether each token is predicted from those before it."""
        return self.kind == "causal"

    @property
    def multimodal(self) -> bool:
        """Whether the model reads more than text."""
        return self.nested or bool(self.modalities)

    def require_causal(self, folder: Path | str, hint: str) -> None:
        """Raise InputError not-causal where the model is not a causal language model.

        Args:
            folder: Where the model is, for the message.
            hint: Why it must be one, or what to do instead.
        """
        if self.causal:
            return
        what = (
            f"{self.architecture} is an encoder-decoder" if self.kind != "other" else f"this is a {self.architecture}"
        )
        raise InputError("not-causal", f"a causal language model is needed, and {what}", hint, model=folder)

    def require_text_only(self, folder: Path | str) -> None:
        """Raise InputError not-text-only where the model reads more than text."""
        if self.multimodal:
            message = f"this model reads more than text ({self.architecture})"
            raise InputError("not-text-only", message, "save its language model on its own and use that", model=folder)


def model_facts(config: Mapping[str, Any]) -> ModelFacts:
    """Read the facts of a model from its parsed config.json. A config that names no class counts as causal."""
    names = config.get("architectures") or []
    name = str(names[0]) if names else str(config.get("model_type", "unknown"))
    if config.get("is_encoder_decoder"):
        kind: ModelKind = "encoder-decoder"
    else:
        kind = "causal" if not names or any(word in str(each) for each in names for word in _CAUSAL) else "other"
    path, text = next(((p, c) for p, c in configs(config) if type(c.get("vocab_size")) is int), ("", config))
    limits = [text[key] for key in _POSITIONS if type(text.get(key)) is int]
    found = {key for _, child in configs(config) for key in _OTHER_MODALITIES if isinstance(child.get(key), dict)}
    return ModelFacts(name, kind, frozenset(found), bool(path), limits[0] if limits else None, "auto_map" in config)
