"""The files of sentence-transformers beside a model: the tokens that they name, and the texts that they prepend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from tokswap.checkpoint.configs import edit_ids
from tokswap.checkpoint.id_map import IdMap
from tokswap.checkpoint.nested_configs import configs
from tokswap.checkpoint.processors import Processors, processor_texts
from tokswap.checkpoint.schema import check_config
from tokswap.checkpoint.shards import read_shard
from tokswap.errors import InputError
from tokswap.storage.json_files import read_configs

SETTINGS = ("config_sentence_transformers.json", "sentence_bert_config.json", "artifact.metadata")
"""Files of the whole model; `artifact.metadata` is ColBERT's own."""
_OF_A_MODULE = "[0-9]_*/config.json"
_DIMENSIONS = ("embedding_dimension", "word_embedding_dimension")
_TEXTS = ("query_prefix", "document_prefix", "query_token_id", "doc_token_id", "query_token", "doc_token")
"""Keys whose value is a text. ColBERT's `query_token_id` is the token itself."""
_WORDS = ("vocab", "vocabulary")
"""Keys of modules that list words: WordWeights, BoW."""
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "whitespacetokenizer_config.json")
_COLBERT = "HF_ColBERT"
_COLBERT_TEXTS = ("[unused0]", "[unused1]")
"""What sentence-transformers puts before queries and documents where ColBERT's metadata is missing."""

Modules = Mapping[str, Mapping[str, Any]]
"""Name of a file, relative to the model's folder -> its parsed JSON."""


def read_modules(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the settings of a sentence-transformers model and of its modules, {} without any.

    Raises:
        InputError: bad-config, outside-link.
    """
    found = read_configs(folder, (*SETTINGS, _OF_A_MODULE))
    for name, config in found.items():
        check_config(config, folder / name)
    return found


def check_modules(folder: Path, modules: Modules, rows: int) -> None:
    """Refuse modules with something for each token: weights of words, embeddings, a vocabulary of their own.

    Args:
        folder: The folder of the model.
        modules: What `read_modules` has read.
        rows: Rows of its vocabulary matrices.

    Raises:
        InputError: unknown-vocab-tensor.
    """
    for name, config in modules.items():
        place = (folder / name).parent
        if place == folder:
            continue
        why = "a vocabulary of its own" if any(isinstance(config.get(key), list) for key in _WORDS) else ""
        if any((place / file).is_file() for file in _TOKENIZERS):
            why = "a tokenizer of its own"
        for path in sorted(place.glob("*.safetensors")):
            sized = [info.name for info in read_shard(path).tensors if rows in info.shape]
            why = why or (f"a tensor with a row for each token ({sized[0]})" if sized else "")
        if why:
            message = f"the module {place.name} of sentence-transformers has {why}, which would keep the old ids"
            hint = "leave the module out of modules.json and of the folder, and train it anew for the result"
            raise InputError("unknown-vocab-tensor", message, hint, folder=folder)


def edit_modules(modules: Modules, ids: IdMap, rows: tuple[int, int]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the files that change with the vocabulary, and notes.

    Args:
        modules: What `read_modules` has read.
        ids: How ids translate.
        rows: Rows of the vocabulary matrices, before and after.

    Raises:
        InputError: unmapped-id where a module needs a token that the new vocabulary lacks.
    """
    changed, notes = {}, []
    for name, config in modules.items():
        edited = deepcopy(dict(config))
        notes += edit_ids(edited, ids)
        for key in _DIMENSIONS:  # SPLADE: one dimension a token
            if "pooling_strategy" in edited and edited.get(key) == rows[0]:
                edited[key] = rows[1]
        if edited != config:
            changed[name] = edited
    return changed, notes


def fixed_texts(config: Mapping[str, Any], modules: Modules, processors: Processors) -> list[str]:
    """Return the texts that a model was trained to read before others: prompts, and the prefixes of T5's tasks.

    What a processor writes around images is among them.

    Args:
        config: Its config.json.
        modules: What `read_modules` has read.
        processors: What `read_processors` has read.
    """
    found = processor_texts(config, processors)
    found += [child["prefix"] for _, child in configs(config) if isinstance(child.get("prefix"), str)]
    for settings in modules.values():
        found += [settings[key] for key in _TEXTS if isinstance(settings.get(key), str)]
        found += _texts_in(settings.get("prompts"))
        expansion = settings.get("query_expansion")
        found += _texts_in(expansion.get("token")) if isinstance(expansion, dict) else []
    if _COLBERT in (config.get("architectures") or []):
        found += _COLBERT_TEXTS
    return list(dict.fromkeys(text for text in found if text))


def _texts_in(value: Any) -> Iterator[str]:
    """Yield the texts of a value that may be one text, or hold them by name."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for child in value.values():
            yield from _texts_in(child)
