"""Fill-in-the-middle: the markers of a model, and the order in which it reads the two sides of a gap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tokswap.ensemble.boundary import Prompt
from tokswap.errors import InputError, UsageError, did_you_mean
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind

KNOWN = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen2.5-Coder, CodeGemma
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Granite, Refact
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),  # Code Llama
    ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),  # GLM
)
"""Markers of known families: the tokens before the prefix, the suffix and the middle."""
_ENDS = ("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>")
"""Tokens that end a middle and that a tokenizer may not declare as special: those of Qwen2.5-Coder."""


class Markers(NamedTuple):
    """The ids of the tokens before the prefix, the suffix and the middle."""

    prefix: int
    suffix: int
    middle: int


def find_markers(tokenizer: Tokenizer, named: Sequence[str] = ()) -> Markers:
    """Return the FIM markers of a tokenizer.

    Args:
        tokenizer: The tokenizer.
        named: The markers, as the tokenizer spells them; nothing for those of a known family.

    Raises:
        UsageError: bad-setting, unknown-token.
        InputError: no-fim-markers.
    """
    ids = tokenizer.vocabulary.id_of_text
    if named and len(named) != 3:
        message = f"--fim-markers takes the three tokens before prefix, suffix and middle, not {len(named)}"
        raise UsageError("bad-setting", message, "write them with commas: '<fim_prefix>,<fim_suffix>,<fim_middle>'")
    for marker in named:
        if marker not in ids:
            message = (
                f"--fim-markers names a token that is not in the vocabulary: {marker!r}{did_you_mean(marker, ids)}"
            )
            raise UsageError("unknown-token", message, "spell it as the tokenizer does: tokswap inspect")
    found = next((one for one in ([named] if named else KNOWN) if all(marker in ids for marker in one)), None)
    if found is None:
        hint = "name its markers with --fim-markers, or leave out --suffix"
        raise InputError(
            "no-fim-markers", "this tokenizer has no known fill-in-the-middle markers", hint, tokenizer=tokenizer.path
        )
    return Markers(*(ids[marker] for marker in found))


def gap_prompt(tokenizer: Tokenizer, prefix: str, suffix: str, *, markers: Markers, order: str) -> Prompt:
    """Return what a model reads before it fills a gap in. A special token ends the middle.

    Args:
        tokenizer: Its tokenizer.
        prefix: The text before the gap.
        suffix: The text after it.
        markers: The ids of the markers.
        order: "psm" for prefix, suffix, middle: the middle is tokenized by itself, as in training. "spm" for suffix,
            prefix, middle: prefix and middle are one text, and the prefix may end inside a token.
    """
    before = tokenizer.encode(prefix)
    after = tokenizer.literal().encode(suffix, add_special_tokens=False).ids
    if order == "psm":
        ids = [*tokenizer.leading, markers.prefix, *before, markers.suffix, *after, markers.middle]
        closed = len(ids)
    else:
        ids = [*tokenizer.leading, markers.prefix, markers.suffix, *after, markers.middle, *before]
        closed = len(ids) - len(before)
    vocabulary = tokenizer.vocabulary
    own = [vocabulary.id_of_text[text] for text in _ENDS if text in vocabulary.id_of_text]
    ends = {*np.flatnonzero(vocabulary.kind == Kind.SPECIAL).tolist(), *markers, *own}
    return Prompt(tuple(ids), closed=closed, ends=tuple(sorted(ends)))
