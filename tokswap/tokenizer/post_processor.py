"""The parts of a tokenizer.json that put special tokens around a text. Pure: parsed JSON in, parsed JSON out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def nodes(value: object) -> Iterator[Mapping[str, Any]]:
    """Yield a normalizer, pre-tokenizer, decoder or post-processor, and all parts inside it."""
    if isinstance(value, dict):
        yield value
        for child in value.values():
            if isinstance(child, list):
                for item in child:
                    yield from nodes(item)


def leading_ids(spec: Mapping[str, Any]) -> set[int]:
    """Return the ids that the post-processor puts in front of a single text."""
    leading: set[int] = set()
    for node in nodes(spec.get("post_processor")):
        if node.get("type") == "TemplateProcessing":
            for part in node.get("single") or []:
                if "SpecialToken" not in part:
                    break
                leading.update(node["special_tokens"][part["SpecialToken"]["id"]]["ids"])
        elif node.get("type") in ("RobertaProcessing", "BertProcessing"):
            leading.add(node["cls"][1])
    return leading


def trailing_ids(spec: Mapping[str, Any]) -> set[int]:
    """Return the ids that the post-processor puts after a single text."""
    trailing: set[int] = set()
    for node in nodes(spec.get("post_processor")):
        if node.get("type") == "TemplateProcessing":
            for part in reversed(node.get("single") or []):
                if "SpecialToken" not in part:
                    break
                trailing.update(node["special_tokens"][part["SpecialToken"]["id"]]["ids"])
        elif node.get("type") in ("RobertaProcessing", "BertProcessing"):
            trailing.add(node["sep"][1])
    return trailing


def template_ids(spec: Mapping[str, Any]) -> set[int]:
    """Return all ids that the post-processor may put around a text."""
    ids: set[int] = set()
    for node in nodes(spec.get("post_processor")):
        for entry in (node.get("special_tokens") or {}).values():
            ids.update(entry["ids"])
        ids.update(node[side][1] for side in ("cls", "sep") if side in node)
    return ids


def renumbered(post_processor: Any, new_of: Mapping[int, int]) -> Any:
    """Return a post-processor with new ids.

    Args:
        post_processor: The parsed post-processor, or None.
        new_of: Old id -> new id, for all ids of `template_ids`.
    """
    if not isinstance(post_processor, dict):
        return post_processor
    result = dict(post_processor)
    for side in ("cls", "sep"):
        if side in result:
            result[side] = [result[side][0], new_of[result[side][1]]]
    if result.get("special_tokens"):
        result["special_tokens"] = {
            name: {**entry, "ids": [new_of[token] for token in entry["ids"]]}
            for name, entry in result["special_tokens"].items()
        }
    if "processors" in result:
        result["processors"] = [renumbered(child, new_of) for child in result["processors"]]
    return result


def with_leading(post_processor: Any, token: int, text: str) -> dict[str, Any]:
    """Return a post-processor that also puts one special token in front of every text.

    An existing template is extended, not replaced: it may put eos at the end, for instance.

    Args:
        post_processor: The parsed post-processor, or None.
        token: The id of the special token.
        text: The special token, as the tokenizer spells it.
    """
    entry = {"SpecialToken": {"id": text, "type_id": 0}}
    known = {text: {"id": text, "ids": [token], "tokens": [text]}}
    for node in nodes(post_processor):
        if node.get("type") == "TemplateProcessing":
            node = dict(node)
            node["single"] = [entry, *node["single"]]
            node["pair"] = [entry, *node["pair"]]
            node["special_tokens"] = {**node.get("special_tokens", {}), **known}
            return _replaced(post_processor, node)
    template = {
        "type": "TemplateProcessing",
        "single": [entry, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [entry, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": known,
    }
    if post_processor is None:
        return template
    inner = post_processor["processors"] if post_processor.get("type") == "Sequence" else [post_processor]
    return {"type": "Sequence", "processors": [*inner, template]}


def _replaced(post_processor: Any, template: dict[str, Any]) -> dict[str, Any]:
    """Put a template in the place of the old one, at the top or in a sequence."""
    if post_processor.get("type") == "TemplateProcessing":
        return template
    inner = [template if node.get("type") == "TemplateProcessing" else node for node in post_processor["processors"]]
    return {**post_processor, "processors": inner}
