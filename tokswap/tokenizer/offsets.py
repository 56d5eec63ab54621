"""Which bytes of a text each of its tokens stands for, from a loaded transformers tokenizer."""

from __future__ import annotations

import json
from itertools import accumulate
from typing import Any

import numpy as np

from tokswap.tokenizer.families import family_of, spelling_of


def encode_with_offsets(tokenizer: Any, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Cut a text; return ids int64[n] and byte offsets int64[n + 1], without the special tokens that a template adds.

    Token i stands for the bytes offsets[i]:offsets[i + 1] of the text in UTF-8. The tokens' canonical bytes say so
    exactly, inside a character too. A tokenizer that changes a text (lower case, NFKC, a normalised space) is taken
    at its own word, which is good to a character: space between two tokens counts to the second, and of the tokens
    that share a character the first has its bytes.
    """
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = encoded["input_ids"]
    whole = text.encode("utf-8")
    spell = _speller(tokenizer)
    surfaces = [spell(token) for token in tokenizer.convert_ids_to_tokens(ids)]
    spelt = b"".join(surfaces)
    extra = len(spelt) - len(whole)
    if spelt == whole or (extra == 1 and spelt == b" " + whole):  # some tokenizers put a space before every text
        ends = np.fromiter(accumulate(map(len, surfaces)), np.int64, len(ids)) - extra
    else:
        byte_at = np.fromiter(accumulate((len(c.encode("utf-8")) for c in text), initial=0), np.int64, len(text) + 1)
        ends = np.maximum.accumulate(byte_at[[end for _, end in encoded["offset_mapping"]]]) if ids else byte_at[:0]
    offsets = np.concatenate([np.zeros(1, np.int64), ends])
    if ids:
        offsets[-1] = len(whole)  # what a tokenizer drops at the end belongs to the last token
    return np.array(ids, np.int64), np.maximum(offsets, 0)


def _speller(tokenizer: Any) -> Any:
    """How the tokenizer spells bytes; read from its parts, since the whole of it takes a second to write out."""
    backend = tokenizer.backend_tokenizer
    model = backend.model
    names = ("byte_fallback", "end_of_word_suffix", "continuing_subword_prefix")
    spec: dict[str, Any] = {"model": {name: getattr(model, name, None) for name in names}}
    spec["model"]["type"] = type(model).__name__
    for name in ("normalizer", "pre_tokenizer", "decoder"):
        part = getattr(backend, name)
        spec[name] = None if part is None else json.loads(part.__getstate__())
    return spelling_of(family_of(spec, tokenizer.name_or_path), spec)
