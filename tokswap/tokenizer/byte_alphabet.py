"""Convert a tokenizer into one that spells its tokens in GPT-2's byte alphabet, with the same pieces and scores.

The result tokenizes any bytes, also bytes that are not UTF-8. A hypernetwork reads its surface forms from such a
tokenizer. A published hypernetwork comes with one (its tokenizer.json); for a new one it is made here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tokswap.errors import InputError
from tokswap.tokenizer.backend import impossible_text
from tokswap.tokenizer.families import BYTE_LEVEL, SENTENCEPIECE, UNIGRAM
from tokswap.tokenizer.merges import merges_of
from tokswap.tokenizer.post_processor import nodes
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind, Vocabulary, byte_level_token, sentencepiece_bytes

_UNLIKELY = 10.0
"""How far the score of a single byte is below the score of the rarest piece."""
_BYTE = {byte_level_token(bytes([byte])): byte for byte in range(256)}
"""Character of the byte alphabet -> byte."""


def uses_byte_alphabet(spec: Mapping[str, Any]) -> bool:
    """Return whether a tokenizer.json spells its tokens in the byte alphabet, with any type of model."""
    parts = [*nodes(spec.get("pre_tokenizer")), *nodes(spec.get("decoder"))]
    return any(part.get("type") == "ByteLevel" for part in parts)


def byte_alphabet_spec(tokenizer: Tokenizer, rows: int) -> dict[str, Any]:
    """Return the tokenizer.json of the converted tokenizer.

    Ids below `rows` keep their meaning. Pieces that the tokenizer lacks (single bytes, and the beginnings of
    characters) get ids from `rows` on. No text is tokenized into special tokens.

    BPE keeps its merges; merges that join the bytes of a character come first. Unigram keeps its scores. WordPiece
    becomes a Unigram model that uses the fewest pieces.

    Args:
        tokenizer: The tokenizer of a model.
        rows: The rows of the model's embedding matrix.

    Raises:
        InputError: not-byte-level.
    """
    vocabulary, model = tokenizer.vocabulary, tokenizer.spec["model"]
    names = {byte_level_token(token_bytes): token for token_bytes, token in vocabulary.id_of.items() if token_bytes}
    if len(vocabulary) > rows:
        message = f"the tokenizer has {len(vocabulary):,} ids, more than the {rows:,} rows of its model"
        raise InputError("not-byte-level", message, tokenizer=tokenizer.path)
    if not names:
        message = "this tokenizer cannot be converted to the byte alphabet: none of its tokens is a piece of text"
        raise InputError("not-byte-level", message, tokenizer=tokenizer.path)
    if tokenizer.family == BYTE_LEVEL:
        names = {text: token for text, token in model["vocab"].items() if token < rows}
        converted = _bpe(model, names, merges_of(model), rows)
    elif tokenizer.family == SENTENCEPIECE:
        merges = [
            (byte_level_token(sentencepiece_bytes(left)), byte_level_token(sentencepiece_bytes(right)))
            for left, right in merges_of(model)
        ]
        converted = _bpe(model, names, [*_character_merges(names), *merges], rows)
    else:
        scores = [entry[1] for entry in model["vocab"]] if tokenizer.family == UNIGRAM else [-1.0] * len(vocabulary)
        vocab = _unigram_vocab(vocabulary, names, scores, rows)
        converted = {"type": "Unigram", "unk_id": model.get("unk_id") or 0, "byte_fallback": False, "vocab": vocab}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": converted,
    }


def _character_merges(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return merges that join, byte by byte, the characters of all pieces.

    Each merge begins with the first byte of a character and adds a continuation byte, so no merge crosses from one
    character to the next.
    """
    merges: dict[tuple[str, str], None] = {}
    for name in names:
        begin = 0
        for n in range(1, len(name) + 1):
            if n == len(name) or not 0x80 <= _BYTE[name[n]] < 0xC0:
                merges.update(dict.fromkeys((name[begin:at], name[at]) for at in range(begin + 1, n)))
                begin = n
    return list(merges)


def _bpe(
    model: Mapping[str, Any], names: Mapping[str, int], merges: Iterable[tuple[str, str]], rows: int
) -> dict[str, Any]:
    """Return a BPE model of the pieces `names`, with ids from `rows` on for bytes and beginnings of characters."""
    vocab = dict(names)
    kept: dict[tuple[str, str], None] = {}
    for name in _BYTE:
        vocab.setdefault(name, rows + len(vocab) - len(names))
    for left, right in merges:
        if left not in vocab or right not in vocab:
            continue
        if left + right not in vocab:
            if len(right) > 1:
                continue
            vocab[left + right] = rows + len(vocab) - len(names)  # the beginning of a character
        kept[left, right] = None
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": bool(model.get("ignore_merges")),
        "vocab": vocab,
        "merges": [list(pair) for pair in kept],
    }


def _unigram_vocab(vocabulary: Vocabulary, names: Mapping[str, int], scores: list[float], rows: int) -> list[list[Any]]:
    """Return the pieces and scores of a Unigram model, with ids from `rows` on for bytes."""
    name_of = {token: name for name, token in names.items()}
    normal = [scores[n] for n in name_of if n < len(scores) and vocabulary.kind[n] == Kind.NORMAL]
    least = min(normal, default=0.0) - _UNLIKELY
    vocab: list[list[Any]] = []
    for n in range(rows):
        known = n in name_of and n < len(scores) and vocabulary.kind[n] == Kind.NORMAL
        vocab.append([name_of.get(n, impossible_text(n)), scores[n] if known else least])
    return vocab + [[name, least] for name in _BYTE if name not in names]
