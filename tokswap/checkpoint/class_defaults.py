"""What config.json leaves to its class in transformers: the size of the vocabulary, and ids of tokens.

`google/gemma-3-4b-it` names no vocab_size. A Llama that names no eos has eos 2, whatever its vocabulary is.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from tokswap.checkpoint.nested_configs import configs, id_role, text_configs, vocabulary_configs
from tokswap.tokenizer.vocabulary import ROLES, Kind, Vocabulary


def with_class_size(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config.json that names the size of its text vocabulary, if its class knows one.

    Args:
        config: The parsed config.json.
    """
    result = deepcopy(dict(config))
    owners = [] if vocabulary_configs(config) else vocabulary_configs(_complete(config))
    for path, owner in owners[:1]:
        child = result
        for key in filter(None, path.split(".")):
            child = child.setdefault(key, {})
        child["vocab_size"] = owner["vocab_size"]
    return result


def with_class_ids(config: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    """Return a config.json that names the ids that its class gives it, so that they can follow the tokens.

    An id counts where it is that of a special token, and for bos, eos and other roles where the tokenizer has the same:
    else the model was made without regard to the defaults of its class.

    Args:
        config: The parsed config.json.
        vocabulary: The vocabulary of the model.
    """
    result = deepcopy(dict(config))
    complete = dict(configs(_complete(config)))
    for path, child in text_configs(result):
        assert isinstance(child, dict)
        for key, token in complete.get(path, {}).items():
            role = id_role(str(key))  # a class makes numbers of the keys of id2label
            if role is not None and key not in child and _is_meant(role, token, vocabulary):
                child[key] = token
    return result


def _is_meant(role: str, token: Any, vocabulary: Vocabulary) -> bool:
    if type(token) is not int or not 0 <= token < len(vocabulary):
        return False
    if role in ROLES:
        return vocabulary.roles.get(role) == token
    return bool(vocabulary.kind[token] == Kind.SPECIAL)


def _complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config as its class completes it, {} where transformers has no such class or does not take it."""
    from transformers import CONFIG_MAPPING

    try:
        return dict(CONFIG_MAPPING[config["model_type"]].from_dict(deepcopy(dict(config))).to_dict())
    except Exception:  # a class may raise anything; what it would say is not known then
        return {}
