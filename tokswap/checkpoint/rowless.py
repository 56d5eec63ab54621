"""Tokens whose ids lie past the vocabulary matrices of their model: they have no row, and the model cannot read them.

Gemma-3's `<image_soft_token>` has the id 262,144, and the text-only models have 262,144 rows. A `[PAD]` that was added
to Llama's tokenizer has the id 32,000, and the model has 32,000 rows. No text needs such a token: it is left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from copy import deepcopy
from typing import Any

from tokswap.checkpoint.configs import needed_ids
from tokswap.checkpoint.facts import model_facts
from tokswap.checkpoint.nested_configs import text_configs, token_ids
from tokswap.tokenizer.post_processor import template_ids
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import ROLES

_IN_TEXTS = ("bos", "eos")
"""Roles of tokens that the texts of every model need. An unknown token that text needs is in its tokenizer's model."""
_IDS_IN_TEXTS = ("bos_token_id", "eos_token_id", "decoder_start_token_id", "forced_bos_token_id")
_ADD_TOKENS = ("added_tokens.json", "special_tokens_map.json")
"""Files that would add the tokens again. tokenizer.json and the config already hold what they say."""
_MOST_NAMED = 5


@dataclasses.dataclass(frozen=True)
class WithRows:
    """A tokenizer whose tokens all have a row.

    Attributes:
        tokenizer: The tokenizer; unchanged where every token has a row, or where text needs one that has none.
        notes: What was left out.
    """

    tokenizer: Tokenizer
    notes: tuple[str, ...] = ()


def with_rows(tokenizer: Tokenizer, rows: int, *named: Mapping[str, Any]) -> WithRows:
    """Leave out the tokens of a tokenizer that have no row, where no text needs any of them.

    Text needs the tokens of the tokenizer's model, those that a template writes, and those that begin or end a text.

    Args:
        tokenizer: The tokenizer.
        rows: Rows of the vocabulary matrices.
        *named: config.json and generation_config.json of the model. They may name a token that has no row.
    """
    vocabulary = tokenizer.vocabulary
    rowless = [token for token in range(rows, len(vocabulary)) if vocabulary.text[token]]
    if len(vocabulary) <= rows or not _needed(tokenizer, named).isdisjoint(range(rows, len(vocabulary))):
        return WithRows(tokenizer)
    names = {vocabulary.text[token] for token in rowless}
    listed = [f"{vocabulary.text[token]} ({token:,})" for token in rowless[:_MOST_NAMED]]
    more = f" and {len(rowless) - _MOST_NAMED:,} more" if len(rowless) > _MOST_NAMED else ""
    note = f"left out tokens that have no row among the {rows:,} of their model: {', '.join(listed)}{more}"
    kept = dataclasses.replace(
        tokenizer,
        spec=_spec_without(tokenizer.spec, rows),
        config=_config_without(tokenizer.config, names),
        files={name: path for name, path in tokenizer.files.items() if name not in _ADD_TOKENS},
        edited=True,
    )
    return WithRows(kept, (note,))


def ids_with_rows(config: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """Return a config.json or generation_config.json whose bos, eos, pad and other roles name no id without a row.

    Args:
        config: The config.
        rows: Rows of the vocabulary matrices.
    """
    result = deepcopy(dict(config))
    for _, child in text_configs(result):
        for key in (f"{role}_token_id" for role in ROLES):
            ids = token_ids(child, key)
            kept = [token for token in ids if token < rows]
            if kept != ids:
                assert isinstance(child, dict)
                child[key] = kept if len(kept) > 1 else next(iter(kept), None)
    return result


def _needed(tokenizer: Tokenizer, named: Collection[Mapping[str, Any]]) -> set[int]:
    """Return the ids that text needs."""
    vocabulary, merges = tokenizer.vocabulary, tokenizer.spec["model"].get("merges") or []
    added = {entry["id"] for entry in tokenizer.spec.get("added_tokens") or []}
    needed = {token for token, text in enumerate(vocabulary.text) if text} - added
    merged = {part for pair in merges for part in (pair.split(" ") if isinstance(pair, str) else pair)}
    needed |= {token for token in added if vocabulary.text[token] in merged}
    needed |= {token for role, token in vocabulary.roles.items() if role in _IN_TEXTS} | template_ids(tokenizer.spec)
    template = "\n".join(tokenizer.chat_templates.values())
    needed |= {token for token in added if vocabulary.text[token] and vocabulary.text[token] in template}
    for config in named:
        multimodal = model_facts(config).multimodal
        needed |= {token for token, key in needed_ids(config).items() if multimodal or key in _IDS_IN_TEXTS}
    return needed


def _spec_without(spec: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """Return a tokenizer.json without the tokens past some rows."""
    new = {**spec, "added_tokens": [entry for entry in spec.get("added_tokens") or [] if entry["id"] < rows]}
    vocab = spec["model"]["vocab"]  # it may hold added tokens too
    if len(vocab) > rows:
        kept = vocab[:rows] if isinstance(vocab, list) else {text: n for text, n in vocab.items() if n < rows}
        new["model"] = {**spec["model"], "vocab": kept}
    padding = spec.get("padding")
    if padding and padding.get("pad_id", 0) >= rows:
        new["padding"] = None
    return new


def _config_without(config: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return a tokenizer_config.json that names none of some tokens, at any depth.

    A role is set to null, so that no class puts its own default token in its place.
    """
    new: dict[str, Any] = _without(config, names)
    gone = {f"{role}_token": None for role in ROLES if f"{role}_token" in config and f"{role}_token" not in new}
    return {**new, **gone}


def _without(value: Any, names: Collection[str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _without(entry, names) for key, entry in value.items() if _content(entry) not in names}
    if isinstance(value, list):
        return [_without(entry, names) for entry in value if _content(entry) not in names]
    return value


def _content(entry: Any) -> Any:
    content = entry.get("content") if isinstance(entry, Mapping) else entry
    return content if isinstance(content, str) else None
