"""Model tokens that no text is tokenized into. Pure: parsed JSON in, ids out.

The tokenizers library cuts added tokens out of a text before the model sees it, so a model token that contains an added
token is never produced: `ĠĠ` beside the added token of two spaces, or `fÃ¼r` beside an added `ü`. Nor is a token of a
byte-level model that is not written in the byte alphabet, such as a `™` beside `âĦ¢`, or one with a space where a model
gets `▁` in its place, or one whose digits the pre-tokenizer of `transplant --digits` splits.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.tokenizer.backend import parts_backend
from tokswap.tokenizer.digit_splits import digit_rule
from tokswap.tokenizer.post_processor import nodes
from tokswap.tokenizer.vocabulary import BYTE_ALPHABET, Kind, Vocabulary

_BETWEEN = b"\xff"
"""Between two tokens: no UTF-8 text has this byte, so no added token is found across two."""


def unproduced_tokens(spec: Mapping[str, Any], vocabulary: Vocabulary, path: Path, *, marks_spaces: bool) -> set[int]:
    """Find the model tokens that no text is tokenized into.

    Special added tokens hide none: whether they are cut out of a text is up to the caller of a tokenizer.

    Args:
        spec: The parsed tokenizer.json.
        vocabulary: Its vocabulary.
        path: Where it is from, for error messages.
        marks_spaces: Whether the model writes a space as `▁`.

    Raises:
        InputError: bad-tokenizer.
    """
    is_text = np.isin(vocabulary.kind, (Kind.NORMAL, Kind.BYTE))
    text = np.flatnonzero(is_text).tolist()
    first = dict(_cut_out_first(spec, vocabulary, path, marks_spaces=marks_spaces))
    # A token that is itself found in its own text is produced, whatever other added tokens it contains.
    ids = [token for token in text if token not in first or first[token] not in vocabulary.token_bytes[token]]
    places = _containing([vocabulary.token_bytes[token] for token in ids], set(first.values()))
    added = {entry["id"] for entry in spec.get("added_tokens") or []}
    is_written, is_whole = _spelling(spec), digit_rule(spec)
    found = {ids[place] for place in places}
    found |= {token for token in text if token not in added and not is_written(vocabulary.text[token])}
    if is_whole is not None:
        found |= {token for token in text if token not in added and not is_whole(vocabulary.token_bytes[token])}
    return found


def _cut_out_first(
    spec: Mapping[str, Any], vocabulary: Vocabulary, path: Path, *, marks_spaces: bool
) -> Iterator[tuple[int, bytes]]:
    """Yield each added token that is cut out of every text, with the token bytes that it is found as."""
    found = [
        entry
        for entry in spec.get("added_tokens") or []
        if not entry.get("special") and not entry.get("single_word") and vocabulary.kind[entry["id"]] == Kind.NORMAL
    ]
    normalized = [entry for entry in found if entry.get("normalized") and spec.get("normalizer")]
    normalizer = parts_backend(spec, path).normalizer if normalized else None
    for entry in found:
        content = entry["content"]
        if normalizer is not None and entry.get("normalized"):
            content = normalizer.normalize_str(content)
            content = content.replace("▁", " ") if marks_spaces else content
        if content:
            yield entry["id"], content.encode("utf-8", "surrogatepass")


def _containing(token_bytes: Sequence[bytes], parts: set[bytes]) -> set[int]:
    """Return the places of the tokens that contain one of some parts."""
    joined = _BETWEEN.join(token_bytes)
    ends = list(accumulate(len(one) + len(_BETWEEN) for one in token_bytes)) if parts else []
    found = set()
    for part in parts:
        at = joined.find(part)
        while at >= 0:
            place = bisect_right(ends, at)
            found.add(place)
            at = joined.find(part, ends[place])
    return found


def _spelling(spec: Mapping[str, Any]) -> Callable[[str], bool]:
    """Return a function that says whether a token is written as the model gets its texts."""
    parts = [*nodes(spec.get("normalizer")), *nodes(spec.get("pre_tokenizer"))]
    if any(part.get("type") == "ByteLevel" for part in parts):
        return frozenset(BYTE_ALPHABET).issuperset
    replaced = any(
        part.get("type") == "Metaspace" or (part.get("content") == "▁" and part.get("pattern") == {"String": " "})
        for part in parts
    )
    return (lambda text: " " not in text) if replaced else (lambda text: True)
