"""Ids that a class of transformers has built in, so that no config names them.

The first models of the CLIP family read a text at its highest id, where the original vocabulary has eos. CLIP, CLIPSeg
and GroupViT do so where the config has the eos 2, with which OpenAI's models were published, and else look for eos.
Grounding DINO divides a text at four tokens of BERT, whose ids lie among its weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from tokswap.checkpoint.id_map import IdMap
from tokswap.checkpoint.nested_configs import text_configs
from tokswap.errors import InputError
from tokswap.tokenizer.vocabulary import Vocabulary

_OLD_EOS = 2
_AT_HIGHEST_WITH_OLD_EOS = ("clip", "clipseg", "groupvit")
_AT_HIGHEST = ("xclip", "owlvit", "owlv2", "sam3_lite_text")
_DIVIDED = {"grounding-dino": (101, 102, 1012, 1029), "mm-grounding-dino": (101, 102, 1012, 1029)}
"""Model type -> the ids at which it divides a text."""


def with_true_eos(config: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    """Return a config that names eos where its class would take the highest id for it, which comes to the same.

    Args:
        config: The config.json of a source model.
        vocabulary: Its vocabulary.
    """
    result = deepcopy(dict(config))
    for child in _readers(result):
        if child.get("eos_token_id") == _OLD_EOS and not _always(config, child) and _eos_is_highest(vocabulary):
            child["eos_token_id"] = vocabulary.roles["eos"]
    return result


def check_built_in(config: Mapping[str, Any], ids: IdMap) -> None:
    """Refuse a vocabulary in which the ids that a class has built in are those of other tokens.

    Args:
        config: The config.json of the result.
        ids: How ids translate.

    Raises:
        InputError: built-in-ids.
    """
    kind = str(config.get("model_type"))
    moved = [token for token in _DIVIDED.get(kind, ()) if ids.translate(token) != token]
    if moved:
        message = f"{kind} divides a text at the ids {', '.join(map(str, _DIVIDED[kind]))}, and these would be others"
        raise InputError("built-in-ids", message, "extend its vocabulary, which keeps the ids")
    for child in _readers(config):
        takes_highest = _always(config, child) or child.get("eos_token_id") == _OLD_EOS
        if takes_highest and _eos_is_highest(ids.source) and not _eos_is_highest(ids.target):
            raise InputError(
                "built-in-ids",
                f"{kind} reads a text at its highest id, and eos would not be the highest of this vocabulary",
                "a trim keeps the order; another vocabulary must have eos behind all tokens of a text",
            )


def _readers(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the configs of text models that may read a text at its highest id."""
    for _, child in text_configs(config):
        kind = _kind(config, child)
        if kind in _AT_HIGHEST_WITH_OLD_EOS or kind in _AT_HIGHEST:
            yield child  # type: ignore[misc]


def _always(config: Mapping[str, Any], child: Mapping[str, Any]) -> bool:
    return _kind(config, child) in _AT_HIGHEST


def _kind(config: Mapping[str, Any], child: Mapping[str, Any]) -> str:
    return str(child.get("model_type") or config.get("model_type")).removesuffix("_text_model")


def _eos_is_highest(vocabulary: Vocabulary) -> bool:
    """Whether eos comes after every token that a text gives."""
    eos = vocabulary.roles.get("eos")
    return eos is not None and all(token <= eos for token in vocabulary.produced.values())
