"""How text is split for training, and by a tokenizer whose tokens cross spaces. Pure: parsed JSON out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

_WORDS = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}{1,3}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Words with the space before them, numbers in threes, punctuation, white space: for a tokenizer without a model."""
_DIGITS = {
    "single digits": (r"\p{N}",),
    "threes from the left": (r"\p{N}{1,3}",),
    "threes from the right": (r"\p{N}+", r"(?=(\d{3})+(?!\d))"),
}
"""`digit_scheme` -> patterns that split a number so, whatever is around it."""
_SUPERBPE = "threes from the right"
"""How SuperBPE splits numbers; for a tokenizer that does not split them."""
_MARKED_DIGITS = {"single digits": r"\p{N}", "threes from the left": r"\p{N}{1,3}"}
_BYTE_PIECE = r"<0x[0-9A-Fa-f]{2}>"


def byte_level(*, prefix_space: bool = False) -> dict[str, Any]:
    """Return the part that writes text in the byte alphabet and splits nothing."""
    return {"type": "ByteLevel", "add_prefix_space": prefix_space, "trim_offsets": False, "use_regex": False}


def word_pre_tokenizer() -> dict[str, Any]:
    """Return the pre-tokenizer of a byte-level tokenizer that takes nothing over from a model."""
    return sequence([split(_WORDS), byte_level()])


def superword_pre_tokenizer(digits: str, last: Sequence[Any]) -> dict[str, Any]:
    """Return a pre-tokenizer that splits numbers only, so that tokens can cross spaces.

    Args:
        digits: How a number is split, as `digit_scheme` says.
        last: Parts that follow.

    Reference: arXiv 2503.13423
    """
    return sequence([*map(split, _DIGITS.get(digits, _DIGITS[_SUPERBPE])), *last])


def marked_words(digits: str) -> dict[str, Any]:
    """Return the part that splits text with `▁` for a space into words, as SentencePiece does while it trains.

    Args:
        digits: How a number is split, as `digit_scheme` says.
    """
    numbers = _MARKED_DIGITS.get(digits, r"▁?\p{N}+")
    return split(rf"▁?[\p{{L}}\p{{M}}]+|{numbers}|▁?[^\s▁\p{{L}}\p{{M}}\p{{N}}]+|\s+|▁+(?=▁)|▁+")


def without(texts: Iterable[str], *, byte_pieces: bool, characters: Iterable[str] = ()) -> dict[str, Any] | None:
    """Return the part that cuts added tokens and rare characters out of a text that is trained on.

    Args:
        texts: The added tokens.
        byte_pieces: Whether texts such as `<0x41>` are cut out too: the vocabulary has tokens of this name.
        characters: The characters that are trained on; none for all.
    """
    longest_first = sorted(filter(None, texts), key=len, reverse=True)
    patterns = [*map(escaped, longest_first), *([_BYTE_PIECE] if byte_pieces else [])]
    starts = {escaped(text[0]) for text in longest_first} | ({"<"} if byte_pieces else set())
    parts = [rf"(?=[{''.join(sorted(starts))}])(?:{'|'.join(patterns)})"] if patterns else []
    known = "".join(escaped(one) for one in sorted({*characters}))
    parts += [f"[^{known}]"] if known else []
    return {**split("|".join(parts)), "behavior": "Removed"} if parts else None


def escaped(text: str) -> str:
    """Return a pattern that matches exactly a text, inside brackets too."""
    return "".join(one if one.isalnum() or one == "▁" else f"\\x{{{ord(one):x}}}" for one in text)


def split(pattern: str) -> dict[str, Any]:
    """Return a part that makes every match of a pattern a piece of its own."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def sequence(parts: Sequence[Any]) -> dict[str, Any]:
    """Return a pre-tokenizer of several parts; None stands for no part."""
    return {"type": "Sequence", "pretokenizers": [part for part in parts if part is not None]}
