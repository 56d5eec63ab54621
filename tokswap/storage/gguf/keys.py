"""The keys of a GGUF file that describe a tokenizer, made from the parts of a tokenizer.json: the inverse of reading.

`build_keys` tells which kind of tokenizer llama.cpp has for a tokenizer.json. That the kind tokenizes text in the same
way is for the caller to check, with `tokenizer_files`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from tokswap.errors import InputError
from tokswap.storage.gguf.pieces import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, ends_by_text

ROLE_KEYS = {
    "bos": "bos",
    "eos": "eos",
    "unk": "unknown",
    "pad": "padding",
    "sep": "seperator",  # spelt like this in the format
    "cls": "cls",
    "mask": "mask",
}
"""Role -> the name of its key in the file, without `_token_id`."""
TEMPLATE_KEY = "tokenizer.chat_template"
_NO_SCORE = -1e6
_BYTE_SET = frozenset(f"<0x{byte:02X}>" for byte in range(256))
_HINT = "leave out --gguf, or give the target as a .gguf file, whose tokenizer is copied"

Keys = dict[str, Any]


@dataclass(frozen=True)
class Described:
    """A tokenizer as the file needs it.

    Attributes:
        spec: Its parsed tokenizer.json.
        texts: Its tokens by id; "" for an id that it does not define.
        roles: Role -> id.
        stops: Ids that end a generated text, besides eos.
        adds: The roles that texts begin or end with.
        templates: Name -> chat template; the usual one is `default`.
        rows: Rows of the vocabulary matrices. Ids past the tokenizer's last one get names of their own.
    """

    spec: Mapping[str, Any]
    texts: Sequence[str]
    roles: Mapping[str, int]
    stops: Sequence[int] = ()
    adds: frozenset[str] = frozenset()
    templates: Mapping[str, str] = field(default_factory=dict)
    rows: int = 0

    @property
    def size(self) -> int:
        """Number of ids in the file."""
        return max(self.rows, len(self.texts))


def build_keys(source: Described, pre: str | None) -> Keys:
    """Return the `tokenizer.*` keys of a tokenizer.

    Args:
        source: The tokenizer.
        pre: Name of its pre-tokenizer, where it is byte-level BPE; None for SentencePiece and Unigram.

    Raises:
        InputError: gguf-tokenizer, for a tokenizer that llama.cpp has no kind for.
    """
    model = source.spec["model"]
    kinds = _kinds(source)
    if pre is not None:
        own: Keys = {"ggml.model": "gpt2", "ggml.pre": pre, "ggml.merges": _merges(model)}
    elif isinstance(model["vocab"], list):
        own = _unigram(source)
    else:
        own = _sentencepiece(source)
    texts = [*source.texts, *[""] * (source.size - len(source.texts))]
    known = set(texts)
    tokens = [text or _free_name(number, known) for number, text in enumerate(texts)]
    keys: Keys = {**own, "ggml.tokens": tokens, "ggml.token_type": kinds, **role_keys(source)}
    return {f"tokenizer.{key}": value for key, value in keys.items()} | template_keys(source.templates)


def _free_name(number: int, known: Collection[str]) -> str:
    """Return a name for an id without a token. llama.cpp ends where two tokens have the same text."""
    name = f"[PAD{number}]"
    while name in known:
        name = f"[{name}]"
    return name


def role_keys(source: Described) -> Keys:
    """Return the ids of roles and of the ends of generated texts, and what texts begin and end with."""
    keys: Keys = {
        f"ggml.{name}_token_id": source.roles[role] for role, name in ROLE_KEYS.items() if role in source.roles
    }
    others = [number for number in source.stops if number != source.roles.get("eos")]
    if others and "eos" not in source.roles:
        keys["ggml.eos_token_id"] = others.pop(0)
    # There are two more keys. What llama.cpp knows by its text needs none.
    others.sort(key=lambda number: number < len(source.texts) and ends_by_text(source.texts[number]))
    keys |= {f"ggml.{name}_token_id": number for name, number in zip(("eot", "eom"), others, strict=False)}
    return keys | {f"ggml.add_{role}_token": role in source.adds for role in ("bos", "eos")}


def template_keys(templates: Mapping[str, str]) -> Keys:
    """Return the chat templates as keys."""
    return {TEMPLATE_KEY if name == "default" else f"{TEMPLATE_KEY}.{name}": text for name, text in templates.items()}


def refused(message: str) -> InputError:
    """Return the error for a tokenizer that llama.cpp has no kind for."""
    return InputError("gguf-tokenizer", f"llama.cpp has no tokenizer for this vocabulary: {message}", _HINT)


def adds_space_once(spec: Mapping[str, Any]) -> bool:
    """Whether only a text without a space in front gets one. llama.cpp puts it before every text, or before none."""
    return prepends_space(spec) and not any(part.get("type") == "Prepend" for part in _parts(spec))


def prepends_space(spec: Mapping[str, Any]) -> bool:
    """Whether a text gets a space in front, which SentencePiece calls a dummy prefix."""
    schemes = [part.get("prepend_scheme", "always") for part in _parts(spec) if part.get("type") == "Metaspace"]
    return any(part.get("type") == "Prepend" for part in _parts(spec)) or any(s != "never" for s in schemes)


def _kinds(source: Described) -> list[int]:
    model = source.spec["model"]
    fallback = bool(model.get("byte_fallback"))
    kinds = [NORMAL if text else UNUSED for text in source.texts] + [UNUSED] * (source.size - len(source.texts))
    for number, text in enumerate(source.texts):
        if fallback and text in _BYTE_SET:
            kinds[number] = BYTE
    for entry in source.spec.get("added_tokens") or []:
        if source.texts[entry["id"]] == entry["content"]:
            kinds[entry["id"]] = CONTROL if entry.get("special") else USER_DEFINED
    unknown = source.roles.get("unk")
    if unknown is not None and kinds[unknown] == CONTROL and (fallback or isinstance(model["vocab"], list)):
        kinds[unknown] = UNKNOWN
    return kinds


def _merges(model: Mapping[str, Any]) -> list[str]:
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]


def _sentencepiece(source: Described) -> Keys:
    """Scores where they say as much as the merges; else the merges, which llama.cpp reads for Sarvam's pre-tokenizer.

    Gemma 4's kind does the same, but begins every text with bos, whatever the file says.
    """
    model = source.spec["model"]
    spelt = {f"<0x{byte:02X}>" for byte in range(128) if chr(byte) in model["vocab"]}  # llama.cpp takes the character
    if not model.get("byte_fallback") or not _BYTE_SET - spelt <= model["vocab"].keys():
        raise refused("SentencePiece BPE needs a token for each of the 256 bytes")
    pairs = _pairs(model)
    prefix = prepends_space(source.spec)
    if scores_suffice(source.spec):
        rank: dict[str, int] = {}
        for first, second in pairs:
            rank.setdefault(first + second, len(rank))
        scores = [float(-rank[text]) if text in rank else _NO_SCORE for text in source.texts]
        scores += [_NO_SCORE] * (source.size - len(scores))
        return {"ggml.model": "llama", "ggml.scores": scores, "ggml.add_space_prefix": prefix}
    mixed = any("\n" in text and text.strip("\n") for text in model["vocab"])
    if prefix or mixed or any(" " in part for pair in pairs for part in pair):
        raise refused(
            "its merges are not those of SentencePiece, and tokens with newlines or a space in front go with these only"
        )
    merges = [" ".join(pair) for pair in pairs]
    return {"ggml.model": "gpt2", "ggml.pre": "sarvam-moe", "ggml.merges": merges, "ggml.add_space_prefix": False}


def _pairs(model: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [tuple(merge.split(" ", 1)) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]


def scores_suffice(spec: Mapping[str, Any]) -> bool:
    """Whether one score a token says what the merges of a SentencePiece BPE say.

    They are then all pairs of tokens that make a token, and those of one token follow one another; but for runs of one
    character, which SentencePiece matches before it merges.
    """
    pairs, vocab = _pairs(spec["model"]), spec["model"]["vocab"]
    joined = [first + second for first, second in pairs]
    groups = [text for text, _ in groupby(joined) if len(set(text)) > 1]
    if len(groups) != len(set(groups)):
        return False
    known = set(pairs)
    return all(
        (text[:at], text[at:]) in known
        for text in vocab
        for at in range(1, len(text))
        if text[:at] in vocab and text[at:] in vocab
    )


def _unigram(source: Described) -> Keys:
    model = source.spec["model"]
    # Without byte tokens `byte_fallback` does nothing.
    if model.get("byte_fallback") and not _BYTE_SET.isdisjoint(source.texts):
        raise refused("it does not fall back to bytes in a Unigram vocabulary")
    added = [entry["content"] for entry in source.spec.get("added_tokens") or [] if not entry.get("special")]
    cutting = [text for text in added if not text[:1].isascii()]
    if cutting:
        raise refused(f"it reads a character as unknown where it begins with a byte of the added token {cutting[0]!r}")
    scores = [float(entry[1]) for entry in model["vocab"]]
    scores += [0.0] * (source.size - len(scores))
    text = json.dumps(source.spec.get("normalizer"))
    keys: Keys = {
        "ggml.model": "t5",
        "ggml.scores": scores[: source.size],
        "ggml.add_space_prefix": prepends_space(source.spec),
        "ggml.remove_extra_whitespaces": " {2,}" in text
        or "WhitespaceSplit" in json.dumps(source.spec["pre_tokenizer"]),
    }
    charsmap = [part["precompiled_charsmap"] for part in _parts(source.spec) if part.get("type") == "Precompiled"]
    if charsmap:
        keys["ggml.precompiled_charsmap"] = np.frombuffer(base64.b64decode(charsmap[0]), np.uint8)
    if "unk" not in source.roles and model.get("unk_id") is not None:
        keys["ggml.unknown_token_id"] = int(model["unk_id"])
    return keys


def _parts(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return every normalizer and pre-tokenizer of a tokenizer.json."""
    found: list[Mapping[str, Any]] = []
    left = [spec.get("normalizer"), spec.get("pre_tokenizer")]
    while left:
        part = left.pop()
        if part:
            found.append(part)
            left += [*part.get("normalizers", []), *part.get("pretokenizers", [])]
    return found
