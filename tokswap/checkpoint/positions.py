"""How long a text a model reads, by its config, and what that means for its tokenizer. Pure: parsed JSON in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tokswap.checkpoint.nested_configs import id_list, text_configs, vocabulary_configs

POSITIONS_FOLLOW_PAD = (
    "altclip_text_model",
    "bridgetower_text_model",
    "camembert",
    "clap_text_model",
    "data2vec-text",
    "esm",
    "fsmt",
    "ibert",
    "kosmos_2_5_text_model",
    "kosmos_2_text_model",
    "layoutlmv3",
    "lilt",
    "longformer",
    "luke",
    "m2m_100",
    "markuplm",
    "mpnet",
    "nllb-moe",
    "prophetnet",
    "roberta",
    "roberta-prelayernorm",
    "seamless_m4t",
    "seamless_m4t_v2",
    "speech_to_text",
    "speecht5",
    "xglm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)
"""Model types that count positions from pad_token_id, so that the pad id is part of the position embeddings."""
_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_encoder_position_embeddings",
    "max_target_positions",
    "max_seq_len",
)
_OTHER_KEYS = (
    "n_ctx",
    "max_sequence_length",
    "max_source_positions",
    "max_decoder_position_embeddings",
)
"""Keys that limit positions too, those of a part that need not read the text among them."""
_COMPUTED = ("rope", "rotary", "alibi")
"""Parts of the keys of models that compute their positions, and so read more of them, if worse."""
_UNLIMITED = 1e29
"""transformers writes 1e30 for a tokenizer without a limit."""


def positions_follow_pad(text: Mapping[str, Any]) -> bool:
    """Return whether a model counts positions from its pad id.

    Args:
        text: The config of the text model.
    """
    computed = text.get("model_type") == "trocr" and text.get("use_learned_position_embeddings") is False
    return computed or text.get("model_type") in POSITIONS_FOLLOW_PAD


def longest_input(text: Mapping[str, Any]) -> int | None:
    """Return the longest input in tokens, None where the config sets no limit.

    Args:
        text: The config of the text model.
    """
    limit: int | None = next((text[key] for key in _KEYS if type(text.get(key)) is int), None)
    if limit is None:
        return None
    if positions_follow_pad(text):
        limit -= max(id_list(text.get("pad_token_id")), default=-1) + 1
    if text.get("model_type") == "prophetnet":
        limit -= 1  # it reads the position after each token too
    return max([limit, *_stretched(text, limit)])


def longest_input_of(model: Any) -> int | None:
    """Return the longest input of a loaded model in tokens, None where its config sets no limit."""
    return longest_input(model.config.get_text_config().to_dict())


def least_input(config: Mapping[str, Any]) -> int | None:
    """Return a length in tokens that every part of a model surely reads, None where the config sets no limit.

    Args:
        config: The whole config.json.
    """
    texts = [child for _, child in text_configs(config)]
    keys = (*_KEYS, *_OTHER_KEYS)
    limits: list[int] = [child[key] for child in texts for key in keys if type(child.get(key)) is int]
    limits = [limit for limit in limits if limit > 0]
    if not limits:
        return None
    # Positions may begin after the id of the padding token, whatever the type of the model.
    pads: list[int] = [child["pad_token_id"] for child in texts if type(child.get("pad_token_id")) is int]
    first = max(pads, default=-1) + 1
    return min(limits) - (first if first < min(limits) // 4 else 0)


def fitting_length(settings: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a tokenizer_config.json whose model_max_length the model can read, and notes.

    A tokenizer without a limit gets one only where the model has an embedding for each position and fails past them.

    Args:
        settings: The tokenizer_config.json.
        config: The config.json of the model.
    """
    settings = dict(settings)
    text = next((child for _, child in vocabulary_configs(config)), config)
    limit, length = longest_input(text), settings.get("model_max_length")
    if limit is None:
        return settings, ()
    if not isinstance(length, (int, float)) or length > _UNLIMITED:
        if _computes_positions(text):
            return settings, ()
        settings["model_max_length"] = limit
        return settings, (f"`model_max_length` of the tokenizer is now {limit:,}: the model has no more positions",)
    if length <= limit:
        return settings, ()
    settings["model_max_length"] = limit
    note = f"`model_max_length` of the tokenizer is now {limit:,}, not {length:,}: the model has no more positions"
    return settings, (note,)


def _computes_positions(text: Mapping[str, Any]) -> bool:
    relative = "relative_attention_num_buckets" in text and "max_position_embeddings" not in text  # T5
    named = any(part in key and value for key, value in text.items() for part in _COMPUTED)
    return relative or named or text.get("position_embedding_type") == "rotary"


def _stretched(text: Mapping[str, Any], limit: int) -> Iterator[int]:
    """Yield the limits of a model whose rotary positions are scaled to read more than it was trained on."""
    for key in ("rope_scaling", "rope_parameters"):
        value = text.get(key)
        nested = value.values() if isinstance(value, dict) else ()
        for part in (value, *nested):
            if isinstance(part, dict) and isinstance(part.get("factor"), (int, float)):
                original = part.get("original_max_position_embeddings")
                yield int((original if type(original) is int else limit) * part["factor"])
