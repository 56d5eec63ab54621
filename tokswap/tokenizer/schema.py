"""Checks of a tokenizer's JSON files, so that the rest of tokswap can read them without checks. Pure: parsed JSON in.

Files come from strangers, and some are damaged. Each check says what is wrong before tokswap uses a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from tokswap.errors import InputError


def is_id(value: Any) -> bool:
    """Return whether parsed JSON is a token id."""
    return type(value) is int


def is_ids(value: Any) -> bool:
    """Return whether parsed JSON is a list of token ids."""
    return isinstance(value, list) and all(map(is_id, value))


def model_type(model: Mapping[str, Any]) -> str:
    """Return the type of the `model` of a tokenizer.json. Older files do not name it."""
    if model.get("type"):
        return str(model["type"])
    if "merges" in model:
        return "BPE"
    return "Unigram" if isinstance(model.get("vocab"), list) else "WordPiece"


def check_tokenizer(spec: Mapping[str, Any], path: Path) -> None:
    """Check that a tokenizer.json has the structure that the tokenizers library writes.

    Args:
        spec: The parsed tokenizer.json.
        path: Where it is from, for error messages.

    Raises:
        InputError: bad-tokenizer.
    """
    model = spec.get("model")
    if not isinstance(model, dict):
        raise InputError("bad-tokenizer", "this is not a tokenizer.json: it has no `model`", file=path)
    problem = _model_problem(model) or _added_problem(spec.get("added_tokens"))
    for key in ("normalizer", "pre_tokenizer", "decoder", "post_processor"):
        problem = problem or _node_problem(spec.get(key), key)
    problem = problem or _template_problem(spec.get("post_processor"))
    for key in ("padding", "truncation"):
        if spec.get(key) is not None and not isinstance(spec[key], dict):
            problem = problem or f"`{key}` is not an object"
    if problem:
        raise InputError("bad-tokenizer", f"this tokenizer.json is damaged: {problem}", file=path)


def check_tokenizer_config(config: Mapping[str, Any], path: Path) -> None:
    """Check that a tokenizer_config.json has tokens where it should name tokens.

    Args:
        config: The parsed tokenizer_config.json.
        path: Where it is from, for error messages.

    Raises:
        InputError: bad-tokenizer.
    """
    problem = ""
    for key in ("tokenizer_class", "model_type"):
        if config.get(key) is not None and not isinstance(config[key], str):
            problem = f"`{key}` is not a string"
    decoder = config.get("added_tokens_decoder")
    if isinstance(decoder, dict) and not all(token.isdecimal() for token in decoder):
        problem = "a key of `added_tokens_decoder` is not an id"
    for key in ("additional_special_tokens", "extra_special_tokens"):
        listed = config.get(key)
        entries = listed.values() if isinstance(listed, dict) else listed if isinstance(listed, list) else ()
        if not all(isinstance(e.get("content") if isinstance(e, dict) else e, str) for e in entries):
            problem = f"an entry of `{key}` is not a token"
    if problem:
        raise InputError("bad-tokenizer", f"the tokenizer's config is damaged: {problem}", file=path)


def _model_problem(model: Mapping[str, Any]) -> str:
    for key in ("type", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key) is not None and not isinstance(model[key], str):
            return f"`model.{key}` is not a string"
    vocab, merges, unknown = model.get("vocab"), model.get("merges"), model.get("unk_id")
    kind = model_type(model)
    if isinstance(vocab, dict):
        if kind == "Unigram" or not all(map(is_id, vocab.values())):
            return "`model.vocab` should map every token to an id"
    elif isinstance(vocab, list):
        if kind != "Unigram" or not all(map(_is_scored, vocab)):
            return "`model.vocab` should be a list of tokens with scores"
    else:
        return "it has no `model.vocab`"
    if kind == "BPE" and not (isinstance(merges, list) and _are_merges(merges)):
        return "`model.merges` should be a list of pairs"
    if unknown is not None and not (is_id(unknown) and 0 <= unknown < len(vocab)):
        return "`model.unk_id` is not an id"
    return ""


def _is_scored(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) and type(entry[1]) in (int, float)


def _are_merges(merges: list[Any]) -> bool:
    """Whether all are "a b", or all are ["a", "b"]. Half a million are checked at each plan, so without a loop."""
    kinds = set(map(type, merges))
    if kinds == {list}:
        return set(map(len, merges)) == {2} and set(map(type, chain.from_iterable(merges))) == {str}
    return kinds <= {str} and all(merge.count(" ") == 1 for merge in merges)


def _added_problem(added: Any) -> str:
    if added is None:
        return ""
    if not isinstance(added, list) or not all(isinstance(entry, dict) for entry in added):
        return "`added_tokens` is not a list of tokens"
    whole = all(is_id(entry.get("id")) and isinstance(entry.get("content"), str) for entry in added)
    return "" if whole else "an entry of `added_tokens` has no id or no content"


def _node_problem(node: Any, place: str) -> str:
    """Return what is wrong with a part of the pipeline, or with a part inside it; "" if nothing is."""
    if node is None:
        return ""
    if not isinstance(node, dict) or not isinstance(node.get("type"), str):
        return f"`{place}` has a part without a type"
    if node["type"] != "Sequence":
        return ""
    lists = [node[key] for key in ("normalizers", "pretokenizers", "decoders", "processors") if key in node]
    if len(lists) != 1 or not isinstance(lists[0], list):
        return f"`{place}` has a sequence without parts"
    return next(filter(None, (_node_problem(child, place) for child in lists[0])), "")


def _template_problem(node: Any) -> str:
    """Return what is wrong with the tokens and ids of a post-processor; "" if nothing is."""
    if node is None:
        return ""
    if node["type"] == "Sequence":
        if "processors" not in node:
            return "`post_processor` has a sequence without parts"
        return next(filter(None, map(_template_problem, node["processors"])), "")
    if node["type"] in ("BertProcessing", "RobertaProcessing"):
        pairs = [node.get(side) for side in ("cls", "sep")]
        whole = all(isinstance(p, list) and len(p) == 2 and isinstance(p[0], str) and is_id(p[1]) for p in pairs)
        return "" if whole else "`post_processor` names no cls or sep"
    return _parts_problem(node) if node["type"] == "TemplateProcessing" else ""


def _parts_problem(node: Mapping[str, Any]) -> str:
    """Return what is wrong with the parts of a template; "" if nothing is."""
    known = node.get("special_tokens")
    known = {} if known is None else known
    if not isinstance(known, dict) or not all(
        isinstance(entry, dict) and is_ids(entry.get("ids")) for entry in known.values()
    ):
        return "a special token of `post_processor` has no ids"
    for side in ("single", "pair"):
        parts = node.get(side)
        if not isinstance(parts, list):
            return f"`post_processor` has no template `{side}`"
        for part in parts:
            inner = next(iter(part.values()), None) if isinstance(part, dict) and len(part) == 1 else None
            if not isinstance(inner, dict) or not isinstance(inner.get("id"), str):
                return f"`post_processor` has a damaged template `{side}`"
            if "SpecialToken" in part and inner["id"] not in known:
                return f"`post_processor` adds {inner['id']!r} to a text, and does not define it"
    return ""
