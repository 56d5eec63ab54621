"""What config.json says about a model, read once: what it predicts, what it reads, how much, and whose code it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokswap.checkpoint.nested_configs import configs, vocabulary_configs
from tokswap.checkpoint.positions import longest_input
from tokswap.errors import InputError

_CAUSAL = ("CausalLM", "LMHeadModel", "ForConditionalGeneration")
_WITH_HEAD = ("LMHead", "ForCausalLM", "ForMaskedLM", "ForConditionalGeneration", "ForPreTraining", "MTModel")
_OTHER_MODALITIES = ("vision_config", "audio_config")

ModelKind = Literal["causal", "encoder-decoder", "other"]


@dataclass(frozen=True)
class ModelFacts:
    """Facts about a model, from config.json alone.

    Attributes:
        architecture: Class name in transformers. Where the config names no class, the one that transformers makes of
            the model type to generate text, or the model type itself.
        kind: "causal" where each token is predicted from those before it, "encoder-decoder", or "other".
        has_head: Whether the class predicts tokens, and so has an lm_head, stored or tied.
        tied: What the config says about tied embeddings, None where it says nothing.
        modalities: Config keys of what the model reads besides text, such as `vision_config`.
        nested: Whether the text model is part of a larger one.
        positions: Longest input in tokens, None where the config sets no limit.
        remote_code: Whether the model names code of its own (`auto_map`).
    """

    architecture: str
    kind: ModelKind
    has_head: bool
    tied: bool | None
    modalities: frozenset[str]
    nested: bool
    positions: int | None
    remote_code: bool

    @property
    def causal(self) -> bool:
        """Whether each token is predicted from those before it."""
        return self.kind == "causal"

    @property
    def masked(self) -> bool:
        """Whether it is an encoder that predicts masked tokens."""
        return self.kind == "other" and "MaskedLM" in self.architecture

    @property
    def multimodal(self) -> bool:
        """Whether the model reads more than text."""
        return self.nested or bool(self.modalities)

    def require_causal(self, folder: Path | str, hint: str) -> None:
        """Refuse a model that is not a causal language model.

        Args:
            folder: Where the model is, for the message.
            hint: Why it must be one, or what to do instead.

        Raises:
            InputError: not-causal.
        """
        if self.causal:
            return
        what = (
            f"{self.architecture} is an encoder-decoder" if self.kind != "other" else f"this is a {self.architecture}"
        )
        raise InputError("not-causal", f"a causal language model is needed, and {what}", hint, model=folder)

    def require_text_only(self, folder: Path | str) -> None:
        """Refuse a model that reads more than text.

        Args:
            folder: Where the model is, for the message.

        Raises:
            InputError: not-text-only.
        """
        if self.multimodal:
            message = f"this model reads more than text ({self.architecture})"
            raise InputError("not-text-only", message, "save its language model on its own and use that", model=folder)


def model_facts(config: Mapping[str, Any]) -> ModelFacts:
    """Read the facts of a model from its parsed config.json."""
    path, text = next(iter(vocabulary_configs(config)), ("", config))
    names = _architectures(config) or _architectures(text) or _class_of_type(config)
    flags = [child["tie_word_embeddings"] for child in (config, text) if "tie_word_embeddings" in child]
    modalities = {key for _, child in configs(config) for key in _OTHER_MODALITIES if isinstance(child.get(key), dict)}
    return ModelFacts(
        architecture=names[0] if names else str(config.get("model_type") or "unknown"),
        kind=_kind(config, names),
        has_head=_any_holds(names, _WITH_HEAD),
        tied=next((flag for flag in flags if isinstance(flag, bool)), None),
        modalities=frozenset(modalities),
        nested=bool(path),
        positions=longest_input(text),
        remote_code="auto_map" in config,
    )


def _architectures(config: Mapping[str, Any]) -> list[str]:
    names = config.get("architectures")
    return [str(name) for name in names] if isinstance(names, list) else []


def _class_of_type(config: Mapping[str, Any]) -> list[str]:
    """Return the class that transformers takes for a config without `architectures`, to generate text.

    Encoders have several, with a head and without, so their class stays unknown.
    """
    from transformers.models.auto import modeling_auto as auto

    if _is_encoder(config):
        return []
    seq2seq, causal = auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    name = (seq2seq if config.get("is_encoder_decoder") else causal).get(str(config.get("model_type")))
    return [name] if isinstance(name, str) else []


def _is_encoder(config: Mapping[str, Any]) -> bool:
    """Whether transformers has a class of masked tokens for this type of model, and it is no decoder."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    decoder = config.get("is_encoder_decoder") or config.get("is_decoder") is True
    return not decoder and str(config.get("model_type")) in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def _kind(config: Mapping[str, Any], architectures: Sequence[str]) -> ModelKind:
    """Tell what a model predicts. A config that names no class counts as causal, unless it is an encoder's."""
    if config.get("is_encoder_decoder"):
        return "encoder-decoder"
    if not architectures:
        return "other" if _is_encoder(config) else "causal"
    return "causal" if _any_holds(architectures, _CAUSAL) else "other"


def _any_holds(names: Sequence[str], words: Sequence[str]) -> bool:
    return any(word in name for name in names for word in words)
