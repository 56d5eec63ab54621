"""Configs inside config.json: a multimodal model describes its text model and its encoders in objects of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokswap.errors import InputError

_ID_KEY = re.compile(r"^_?(?P<role>.+)_token_(id|ids|index)$|^(?P<index>bos|eos|pad|unk|sep|cls|mask)_index$")
"""Keys that name tokens; XLM says `pad_index`, and Idefics3 and SmolVLM save `_pad_token_id`."""
_MORE_ID_KEYS = frozenset(
    [
        "im_start_id",
        "im_end_id",
        "im_newline_id",
        "image_start_id",
        "image_end_id",
        "image_patch_id",
        "slice_start_id",
        "slice_end_id",
        "newline_id",
    ]
)
"""Keys without the word: HunYuan-VL, Molmo 2, MiniCPM-V."""
_OTHER_IDS = re.compile(r"(t2u|codec|tts_codec|codebook|vocoder)_")
"""Keys of a text config whose ids are those of units of sound (Seamless, CSM)."""
_SOUND = re.compile(r"(^|\.)talker_config$")
"""Configs of models that write sound, in a vocabulary of its own (Qwen-Omni)."""
_TWO = frozenset(["text_vocab_size", "delay_pattern"])
"""Keys of models that write sound, such as Dia."""
_NOT_TEXT = re.compile(r"(vision|audio|speech|image|video|codec|depth|vq|qformer)")


def configs(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield ("", config), and then every nested config with its dotted path."""
    yield "", config
    for key, value in config.items():
        if isinstance(value, dict):
            for path, child in configs(value):
                yield (f"{key}.{path}" if path else key), child


def is_text_path(path: str) -> bool:
    """Return whether the nested config at a dotted path describes text, not images, audio or codes."""
    return not _NOT_TEXT.search(path)


def is_text(path: str, config: Mapping[str, Any]) -> bool:
    """Return whether the nested config at a dotted path describes text. The words of BEiT are parts of images."""
    return is_text_path(path) and not (path and config.get("model_type") == "beit")


def other_parts(config: Mapping[str, Any], size: int) -> frozenset[str]:
    """Return the names of the modules with a vocabulary of their own that has the size of the text vocabulary.

    The Q-Former of InstructBLIP reads text with the tokenizer of BERT.

    Args:
        config: The whole config.json.
        size: The size of the text vocabulary.
    """
    names = (path.rpartition(".")[2] for path, child in configs(config) if child.get("vocab_size") == size)
    return frozenset(name.removesuffix("_config") for name in names if not is_text_path(name))


def text_configs(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the configs, of those of `configs`, whose sizes and ids are those of the text vocabulary, with their paths.

    Those inside with a vocabulary of another size are left out: the proteins of Evolla, or the queries of a projector.
    """
    owners = vocabulary_configs(config)
    owner, size = (owners[0][0], owners[0][1]["vocab_size"]) if owners else ("", None)
    others = [path for path, child in owners if child["vocab_size"] != size and not _is_inside(owner, path)]
    for path, child in configs(config):
        if is_text(path, child) and not any(_is_inside(path, other) for other in others):
            yield path, child


def _is_inside(path: str, outer: str) -> bool:
    return outer == "" or path == outer or path.startswith(f"{outer}.")


def vocabulary_configs(config: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the configs that name the size of a text vocabulary, with their paths; the outermost comes first.

    A `text_config` of another size comes before the config around it, or beside it: it is that of the model's text. The
    outer one is a default of its class that nobody has corrected (PaliGemma, LLaVA), the other that of a projector
    (Granite Speech).
    """
    found = [
        (path, child)
        for path, child in configs(config)
        if type(child.get("vocab_size")) is int and child["vocab_size"] > 0 and is_text(path, child)
    ]
    outer, size = (found[0][0], found[0][1]["vocab_size"]) if found else ("", 0)
    inner = {f"{around}.text_config".lstrip(".") for around in (outer, outer.rpartition(".")[0])}
    first = [owner for owner in found if owner[0] in inner and owner[1]["vocab_size"] != size]
    return first + [owner for owner in found if owner not in first]


def text_config(config: Mapping[str, Any], folder: Path | str = "") -> tuple[str, Mapping[str, Any]]:
    """Find the config that owns the text vocabulary.

    Args:
        config: config.json, parsed.
        folder: Where the model is, for messages.

    Returns:
        The path and content of the first config with a vocab_size.

    Raises:
        InputError: bad-config, where there is none; two-vocabularies.
    """
    if "src_vocab_size" in config and "tgt_vocab_size" in config:
        raise InputError("two-vocabularies", "source and target language have separate vocabularies", folder=folder)
    owners = vocabulary_configs(config)
    _check_sound(config, folder)
    _check_further(config, folder)
    if not owners:
        raise InputError("bad-config", "config.json names no vocab_size", "is this a language model?", folder=folder)
    sizes = {child["vocab_size"] for _, child in owners}
    differ = {"encoder", "decoder"} <= set(config) and len(sizes) > 1
    if differ or owners[0][1].get("share_encoder_decoder_embeddings") is False:
        raise InputError("two-vocabularies", "encoder and decoder have separate vocabularies", folder=folder)
    return owners[0]


def _check_sound(config: Mapping[str, Any], folder: Path | str) -> None:
    """Refuse a model with a vocabulary of sound beside that of text, and ids of both under the same keys."""
    speaking = [path for path, child in configs(config) if _SOUND.search(path) or _names_codes(path, child)]
    if speaking or not _TWO.isdisjoint(config):
        part = f" ({speaking[0]})" if speaking and speaking[0] else ""
        hint = "save the part that reads text on its own, such as the thinker of Qwen-Omni, and use that"
        message = f"this model writes sound in a vocabulary of its own{part}"
        raise InputError("two-vocabularies", message, hint, folder=folder)


def _check_further(config: Mapping[str, Any], folder: Path | str) -> None:
    """Refuse a model whose last tokens have embeddings of their own, by ids that follow the size of the vocabulary."""
    further = max((child["additional_vocab_size"] for _, child in configs(config) if _has_further(child)), default=0)
    if further:
        message = f"the last {further:,} tokens of this model have matrices of their own (`additional_vocab_size`)"
        hint = "save the language model on its own, and change that"
        raise InputError("two-vocabularies", message, hint, folder=folder)


def _has_further(config: Mapping[str, Any]) -> bool:
    return type(config.get("additional_vocab_size")) is int and "vocab_size" in config


def _names_codes(path: str, child: Mapping[str, Any]) -> bool:
    codes = path != "" and is_text_path(path) and "num_codebooks" in child and "vocab_size" in child
    return codes or ("input_vocab_size" in child and "output_vocab_size" in child)  # Bark


def id_role(key: str) -> str | None:
    """Return what the tokens are for that a key of a config names, None for a key that names no tokens.

    Args:
        key: The key, such as `pad_token_id`, which gives "pad".
    """
    match = _ID_KEY.match(key)
    if match is not None and not _OTHER_IDS.match(key):
        return match["role"] or match["index"]
    return key.removesuffix("_id") if key in _MORE_ID_KEYS else None


def token_ids(config: Mapping[str, Any], key: str) -> list[int]:
    """Return an id field of a config as a list: it may hold nothing, one id or several."""
    return id_list(config.get(key))


def id_list(value: Any) -> list[int]:
    """Return the ids of a value that may be one id, a list of ids, or anything else."""
    values = value if isinstance(value, list) else [value]
    return [token for token in values if type(token) is int]
