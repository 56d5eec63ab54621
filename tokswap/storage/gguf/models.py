"""The parts of a tokenizer.json that differ between the tokenizers of llama.cpp: BPE, SentencePiece BPE and Unigram."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokswap.errors import InputError
from tokswap.storage.gguf.pieces import BYTE, CONTROL, UNKNOWN, USER_DEFINED, Pieces
from tokswap.storage.gguf.splits import SPLITS, Split

Part = dict[str, Any]
_SPACE = "▁"
_ESCAPE: Part = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
_NEVER = 1000.0
"""How much worse than any other a token must be that no text is made of."""


@dataclass(frozen=True)
class Model:
    """What the kind of a tokenizer decides.

    Attributes:
        parts: The normalizer, pre_tokenizer, model and decoder of the tokenizer.json.
        roles: The ids of roles that files of this kind need not name.
        adds: The roles that texts begin or end with where the file does not say whether they do.
    """

    parts: Mapping[str, Part | None]
    roles: Mapping[str, int]
    adds: frozenset[str]


def build_model(metadata: Mapping[str, Any], pieces: Pieces) -> Model:
    """Return the model of a file.

    Raises:
        InputError: unsupported-tokenizer.
        ValueError: for a file that lacks what its kind of tokenizer needs.
    """
    kind = metadata.get("tokenizer.ggml.model", "none")
    builders = {"gpt2": _bpe, "gemma4": _bpe, "llama": _sentencepiece, "t5": _unigram}
    if kind not in builders:
        raise InputError("unsupported-tokenizer", f"this GGUF file has a tokenizer of the kind `{kind}`", _WAY_ON)
    return builders[kind](metadata, pieces)


_BYTE_LEVEL: Part = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def split_steps(split: Split) -> list[Part]:
    """Return a pre-tokenizer as the steps of a tokenizer.json."""
    steps: list[Part] = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in split.patterns
    ]
    return [*steps, dict(_BYTE_LEVEL)] if split.byte_level else steps


_WAY_ON = "give the folder of the model that the file was made from: it has the original tokenizer"


def _bpe(metadata: Mapping[str, Any], pieces: Pieces) -> Model:
    name = metadata.get("tokenizer.ggml.pre") or "default"
    name = "gemma4" if metadata["tokenizer.ggml.model"] == "gemma4" else name
    if name not in SPLITS:
        raise InputError("unsupported-tokenizer", f"tokswap does not know the pre-tokenizer `{name}`", _WAY_ON)
    split = SPLITS[name]
    ids = pieces.ids
    merges = dict.fromkeys(_pair(merge) for merge in metadata["tokenizer.ggml.merges"])
    kept = [list(pair) for pair in merges if pair[0] in ids and pair[1] in ids and "".join(pair) in ids]
    steps = split_steps(split)
    parts = {
        "normalizer": None if split.byte_level else _ESCAPE,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "model": _bpe_model(ids, kept, byte_fallback=not split.byte_level, ignore_merges=split.keeps_words),
        "decoder": dict(_BYTE_LEVEL) if split.byte_level else _space_decoder(strips=False),
    }
    return Model(parts, roles={}, adds=frozenset(["bos"] * split.adds_bos))


def _pair(merge: str) -> tuple[str, str]:
    """Return the merge pair: the first symbol has at least one character, and may itself be a space."""
    at = merge.find(" ", 1)
    return merge[:at], merge[at + 1 :]


def _bpe_model(ids: Mapping[str, int], merges: Sequence[list[str]], **flags: Any) -> Part:
    unset = {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None}
    return {"type": "BPE", **unset, "fuse_unk": True, **flags, "vocab": ids, "merges": merges}


def _space_decoder(*, strips: bool) -> Part:
    """Return the decoder of vocabularies that write a space as `▁`. It strips the space that the normalizer adds."""
    steps: list[Part] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if strips:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}


def _sentencepiece(metadata: Mapping[str, Any], pieces: Pieces) -> Model:
    """Return BPE without merges in the file: of two neighbours the pair goes first whose token has the better score."""
    if not pieces.scores:
        raise ValueError("its tokens have no scores")
    prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    roles = {"bos": 1, "eos": 2, "unk": 0}
    unknown = pieces.texts[int(metadata.get("tokenizer.ggml.unknown_token_id", roles["unk"]))]
    model = _bpe_model(pieces.ids, _ranked_pairs(pieces), byte_fallback=True, ignore_merges=False)
    parts = {
        "normalizer": _sequence([_PREPEND] * prefix + [_ESCAPE]),
        "pre_tokenizer": None,
        "model": {**model, "unk_token": unknown},
        "decoder": _space_decoder(strips=prefix),
    }
    return Model(parts, roles=roles, adds=frozenset(["bos"]))


_PREPEND: Part = {"type": "Prepend", "prepend": _SPACE}


def _sequence(steps: list[Part]) -> Part:
    return steps[0] if len(steps) == 1 else {"type": "Sequence", "normalizers": steps}


def _ranked_pairs(pieces: Pieces) -> list[list[str]]:
    """Return every pair of tokens that makes a token, best score first, then lowest id.

    llama.cpp takes the leftmost of two pairs with the same score. Merges have ranks that all differ, so ids decide: a
    converter that knows no scores writes the same one for all tokens, in the order in which they were learned.
    """
    ids = pieces.ids
    ranked = sorted(range(len(pieces.texts)), key=lambda number: -pieces.scores[number])
    return [
        [text[:at], text[at:]]
        for text in map(pieces.texts.__getitem__, ranked)
        for at in range(1, len(text))
        if text[:at] in ids and text[at:] in ids
    ]


def _unigram(metadata: Mapping[str, Any], pieces: Pieces) -> Model:
    if not pieces.scores:
        raise ValueError("its tokens have no scores")
    prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", False))
    merges_spaces = bool(metadata.get("tokenizer.ggml.remove_extra_whitespaces", False))
    charsmap = metadata.get("tokenizer.ggml.precompiled_charsmap")
    steps: list[Part] = []
    if charsmap is not None:
        encoded = base64.b64encode(np.asarray(charsmap).tobytes()).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": encoded})
    if merges_spaces:
        steps += [_regex(r"\A +| +\z", ""), _regex(" +", " ")]
    if prefix or merges_spaces:
        steps.append(_regex(r"\A(?= *[^ ])", " "))  # no space before nothing but spaces
    roles = {"eos": 1, "unk": 2, "pad": 0}
    unknown = int(metadata.get("tokenizer.ggml.unknown_token_id", roles["unk"]))
    vocab = [[text, score] for text, score in zip(pieces.texts, _unigram_scores(pieces), strict=True)]
    parts = {
        "normalizer": _sequence([*steps, _ESCAPE]),
        "pre_tokenizer": None,
        "model": {"type": "Unigram", "unk_id": unknown, "byte_fallback": False, "vocab": vocab},
        "decoder": _space_decoder(strips=prefix or merges_spaces),
    }
    return Model(parts, roles=roles, adds=frozenset(["eos"]))


def _unigram_scores(pieces: Pieces) -> list[float]:
    """Return scores with which a text that only looks like a control token does not become one."""
    never = min(pieces.scores) - _NEVER
    fixed = {USER_DEFINED: 0.0, UNKNOWN: never, CONTROL: never, BYTE: never}
    return [fixed.get(kind, score) for kind, score in zip(pieces.kinds, pieces.scores, strict=True)]


def _regex(pattern: str, content: str) -> Part:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}
