"""The bytes of a text that each of its tokens stands for, from a loaded transformers tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import numpy as np

from tokswap.tokenizer.families import family_of, spelling_of


def encode_with_offsets(tokenizer: Any, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Tokenize a text, and find the bytes of each token. The special tokens of the template are left out.

    Token i stands for the bytes `offsets[i]:offsets[i + 1]` of the text in UTF-8. The token bytes give these offsets
    exactly, also inside a character. If the tokenizer changes the text (lower case, NFKC, spaces), the offsets are from
    the tokenizer, and exact to a character: space between two tokens belongs to the second token, and a character of
    several tokens belongs to the first.

    Args:
        tokenizer: A fast transformers tokenizer.
        text: The text.

    Returns:
        The ids (int64 [n]) and the byte offsets (int64 [n + 1]).
    """
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = encoded["input_ids"]
    whole = text.encode("utf-8")
    spell = _speller(tokenizer)
    token_bytes = [spell(token) for token in tokenizer.convert_ids_to_tokens(ids)]
    joined = b"".join(token_bytes)
    extra = len(joined) - len(whole)
    if joined == whole or (extra == 1 and joined == b" " + whole):  # some tokenizers put a space before every text
        ends = np.fromiter(accumulate(map(len, token_bytes)), np.int64, len(ids)) - extra
    else:
        byte_at = np.fromiter(accumulate((len(c.encode("utf-8")) for c in text), initial=0), np.int64, len(text) + 1)
        ends = np.maximum.accumulate(byte_at[[end for _, end in encoded["offset_mapping"]]]) if ids else byte_at[:0]
    offsets = np.concatenate([np.zeros(1, np.int64), ends])
    if ids:
        offsets[-1] = len(whole)  # what the tokenizer drops at the end belongs to the last token
    return np.array(ids, np.int64), np.maximum(offsets, 0)


def _speller(tokenizer: Any) -> Callable[[str], bytes]:
    """Return the function from a token to its bytes. Serialising the whole tokenizer for it would take a second."""
    backend = tokenizer.backend_tokenizer
    model = backend.model
    names = ("byte_fallback", "end_of_word_suffix", "continuing_subword_prefix")
    spec: dict[str, Any] = {"model": {name: getattr(model, name, None) for name in names}}
    spec["model"]["type"] = type(model).__name__
    for name in ("normalizer", "pre_tokenizer", "decoder"):
        part = getattr(backend, name)
        spec[name] = None if part is None else json.loads(part.__getstate__())
    return spelling_of(family_of(spec, tokenizer.name_or_path), spec)
