"""Give a tokenizer another way to split numbers, by its pre-tokenizer alone: the vocabulary and other texts stay.

The last part of the pre-tokenizer then splits runs of the digits 0 to 9. Digits of other scripts stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from tokswap.errors import UsageError
from tokswap.tokenizer.digit_splits import DIGIT_SPLITS
from tokswap.tokenizer.families import BYTE_LEVEL, SENTENCEPIECE
from tokswap.tokenizer.probes import mixed_texts
from tokswap.tokenizer.tokenizer import Tokenizer

SCHEME_OF = {
    "single digits": "single",
    "threes from the left": "groups",
    "threes from the right": "right-to-left",
}
"""What `digit_scheme` says -> the name of the scheme as an option."""

_NUMBER_RUN = re.compile(r"(?:^|(?<=\|))\\p\{N\}(?:\{1,3\})?(?=\||$)")
"""An alternative of a pre-tokenizer's pattern that takes one or up to three digits."""
_NUMBERS = ("7", "42", "365", "1984", "27182", "314159", "1234567", "90817263", "4050607080")
_FEWEST_GROUPS = 500
"""Of the 1,000 groups of three digits, as many must be tokens."""


def digits_problem(tokenizer: Tokenizer, scheme: str) -> str | None:
    """Say why the pre-tokenizer of a tokenizer cannot split numbers in a scheme. Quick: it tokenizes nothing.

    Args:
        tokenizer: The tokenizer.
        scheme: single, groups or right-to-left.

    Returns:
        The reason, None where it looks possible.
    """
    if tokenizer.family not in (BYTE_LEVEL, SENTENCEPIECE):
        return f"the target tokenizer is {tokenizer.family}, and only a BPE tokenizer joins digits by its merges alone"
    known = tokenizer.vocabulary.id_of
    missing = [digit for digit in "0123456789" if digit.encode() not in known]
    if missing:
        return f"the target tokenizer has no token for the digit {missing[0]}"
    groups = sum("".join(three).encode() in known for three in product("0123456789", repeat=3))
    if scheme != "single" and groups < _FEWEST_GROUPS:
        return f"only {groups:,} of the 1,000 groups of three digits are tokens of the target tokenizer"
    return None


def with_digits(tokenizer: Tokenizer, scheme: str) -> Tokenizer:
    """Return a tokenizer that splits numbers in a scheme and tokenizes other texts as before.

    Args:
        tokenizer: The tokenizer.
        scheme: single, groups or right-to-left.

    Raises:
        UsageError: digits-impossible.
    """
    problem = digits_problem(tokenizer, scheme)
    if problem:
        raise _impossible(problem, scheme)
    spec = {**tokenizer.spec, "pre_tokenizer": _split_last(tokenizer.spec.get("pre_tokenizer"), scheme)}
    config = {key: value for key, value in tokenizer.config.items() if key != "add_prefix_space"}
    changed = replace(tokenizer, spec=spec, config=config, edited=True)
    problem = _difference(tokenizer, changed, scheme)
    if problem:
        raise _impossible(problem, scheme)
    return changed


def _split_last(node: Any, scheme: str) -> dict[str, Any]:
    """Return a pre-tokenizer with a last part that splits runs of digits; no part before it splits them."""
    split = {"type": "Split", "pattern": {"Regex": DIGIT_SPLITS[scheme]}, "behavior": "Isolated", "invert": False}
    parts = [] if node is None else node["pretokenizers"] if node["type"] == "Sequence" else [node]
    own = [{"Regex": pattern} for pattern in DIGIT_SPLITS.values()]
    kept = [_whole_numbers(part) for part in parts if part.get("pattern") not in own]
    return {"type": "Sequence", "pretokenizers": [*kept, split]}


def _whole_numbers(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a part of a pre-tokenizer that leaves runs of digits whole."""
    if part["type"] == "Digits":
        return {**part, "individual_digits": False}
    pattern = part.get("pattern")
    if part["type"] != "Split" or not isinstance(pattern, dict) or "Regex" not in pattern:
        return part
    return {**part, "pattern": {"Regex": _NUMBER_RUN.sub(lambda found: f"[0-9]+|{found[0]}", pattern["Regex"])}}


def _difference(before: Tokenizer, after: Tokenizer, scheme: str) -> str | None:
    """Say what the changed tokenizer does that nobody asked for, None where it does what it should."""
    texts = [text for text in mixed_texts(()) if not re.search("[0-9]", text)]
    pairs = zip(texts, before.encode_batch(texts), after.encode_batch(texts), strict=True)
    changed = [text for text, old, new in pairs if old != new]
    if changed:
        return f"texts without a digit would get other tokens, such as {min(changed, key=len)!r}"
    for text in (form.format(number) for number in _NUMBERS for form in ("{}", "x {} y", "a{}b", "({},")):
        ids = after.encode(text)
        if before.backend.decode(ids) != before.backend.decode(before.encode(text)):
            return f"{text!r} would be decoded as {before.backend.decode(ids)!r}"
        wrong = [number for number in re.findall("[0-9]+", text) if not _in_scheme(after, ids, number, scheme)]
        if wrong:
            return f"its pre-tokenizer would still join or split the digits of {wrong[0]} in its own way"
    return None


def _in_scheme(tokenizer: Tokenizer, ids: Sequence[int], number: str, scheme: str) -> bool:
    """Return whether the only number of a text has a token boundary at every group and no token across one."""
    token_bytes = tokenizer.vocabulary.token_bytes
    parts = [piece.decode() for piece in (token_bytes[token].strip() for token in ids) if piece.isdigit()]
    groups = re.findall(DIGIT_SPLITS[scheme], number)
    ends = {len("".join(groups[: n + 1])) for n in range(len(groups))}
    own = {len("".join(parts[: n + 1])) for n in range(len(parts))}
    return "".join(parts) == number and ends <= own


def _impossible(problem: str, scheme: str) -> UsageError:
    return UsageError(
        "digits-impossible",
        f"--digits {scheme}: {problem}",
        "leave out --digits; the model then has to learn the target's way to write numbers (tokswap heal)",
    )
