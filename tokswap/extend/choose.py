"""Which tokens are added: the terms of the user, and what saves most tokens on a corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tokswap.errors import InputError
from tokswap.extend.candidates import Words, candidates, token_bytes_of
from tokswap.extend.options import ExtendOptions
from tokswap.extend.splice import Extended, extended
from tokswap.extend.terms import check_any, read_terms, screen
from tokswap.report.plan import Saving
from tokswap.tokenizer.families import BYTE_LEVEL, SENTENCEPIECE
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.trim.closure import closed, pruned

_SPARE = 1.25
"""How many more candidates than tokens are tried, so that those that save little can go."""
_ROWS = 10
"""Rows of the table of savings, at most."""


@dataclass(frozen=True)
class Chosen:
    """The new tokens.

    Attributes:
        extended: The tokenizer with them.
        skipped: Term -> why it is not added.
        saving: What they save on the corpus, by their number.
        text_bytes: Bytes of the text that they were chosen by, and of the held-out text; 0 without a corpus.
    """

    extended: Extended
    skipped: Mapping[str, str]
    saving: tuple[Saving, ...] = ()
    text_bytes: tuple[int, int] = (0, 0)


def choose(tokenizer: Tokenizer, words: Words | None, options: ExtendOptions, first: int) -> Chosen:
    """Choose the new tokens, and add them to a tokenizer.

    Args:
        tokenizer: The tokenizer.
        words: The words of the corpus, None without one.
        options: What the user asked for.
        first: The first new id.

    Raises:
        InputError: no-new-token, corpus-too-small, bad-text, empty-text.
    """
    terms = [term for path in options.tokens for term in read_terms(path, options.field)]
    screened = screen(tokenizer, terms, options.forms)
    if options.add is None:
        check_any(screened.tokens, screened.skipped)
        found = extended(tokenizer, screened.tokens, first)
    else:
        assert words is not None
        found = _with_candidates(tokenizer, screened.tokens, words, (options.add, first))
    skipped = {**screened.skipped, **{_text(token): why for token, why in found.skipped.items()}}
    check_any(found.token_bytes, skipped)
    if words is None:
        return Chosen(found, skipped)
    return Chosen(found, skipped, savings(found, words), text_bytes=words.bytes)


def _with_candidates(tokenizer: Tokenizer, terms: Sequence[bytes], words: Words, size: tuple[int, int]) -> Extended:
    """Add terms, and what saves most on the words of a corpus. size: how many of those, and the first new id."""
    count, first = size
    offered = candidates(words, tokenizer, round(_SPARE * count) + 8)
    asked = set(terms)
    wide = extended(tokenizer, [*terms, *(token for token in offered if token not in asked)], first)
    ids = range(first, first + len(wide))
    if tokenizer.family in (BYTE_LEVEL, SENTENCEPIECE):
        parts = {first + n: tuple(part for part in own if part >= first) for n, own in enumerate(wide.parts)}
    else:
        parts = dict.fromkeys(ids, ())  # no token is on the way to another
    forced = closed(parts, [token for token in ids if wide.token_bytes[token - first] in asked])
    if len(wide) < len(forced) + count:
        raise InputError(
            "corpus-too-small",
            f"the corpus has only {len(wide) - len(forced):,} pairs of tokens to join that occur twice, and --add asks "
            f"for {count:,}",
            "give more text, or a smaller --add",
        )
    score = np.zeros(ids.stop)
    lengths = _lengths(wide, first)
    for token, times in _counts(wide, words.used).items():
        if token >= first:
            score[token] = times * (lengths[token - first] - 1)
    kept = sorted(pruned(parts, set(ids), forced, score, len(forced) + count))
    found = extended(tokenizer, [wide.token_bytes[token - first] for token in kept if wide.asked[token - first]], first)
    return replace(found, skipped={token: why for token, why in wide.skipped.items() if token in asked})


def savings(found: Extended, words: Words) -> tuple[Saving, ...]:
    """Measure what the first new tokens save, by their number.

    Args:
        found: The tokenizer with the new tokens.
        words: The words of the corpus.
    """
    sides = (words.used, words.held_out)
    before = [sum(len(word) * times for word, times in side.items()) for side in sides]
    counts = [_counts(found, side) for side in sides]
    step = -(-len(found) // _ROWS)
    step = step if step < 1000 else -(-step // 1000) * 1000
    rows: list[Saving] = []
    last = 0.0
    for number in [*range(step, len(found), step), len(found)]:
        lengths = _lengths(found, found.first + number)
        after = [
            sum(times * (lengths[token - found.first] if token >= found.first else 1) for token, times in count.items())
            for count in counts
        ]
        used, held = (1 - new / old if old else 0.0 for new, old in zip(after, before, strict=True))
        added = number - (rows[-1].tokens if rows else 0)
        gain = 1000 * (held - last) / added
        rows.append(Saving(number, round(used, 5), round(held, 5), per_thousand=round(gain, 5)))
        last = held
    return tuple(rows)


def _lengths(found: Extended, end: int) -> list[int]:
    """Return how many tokens each new token takes in a tokenizer that has only the ids below `end`."""
    lengths: dict[int, int] = {}

    def length(token: int) -> int:
        if token < max(end, found.first):
            return 1
        if token not in lengths:
            lengths[token] = sum(map(length, found.parts[token - found.first]))
        return lengths[token]

    return [length(token) for token in range(found.first, found.first + len(found))]


def _counts(found: Extended, words: Mapping[str, int]) -> dict[int, int]:
    """Return how often each token occurs in words."""
    texts = token_bytes_of(words, found.tokenizer)
    counts: dict[int, int] = {}
    for row, times in zip(found.tokenizer.tokenize_bytes(list(texts)), texts.values(), strict=True):
        for token in row:
            counts[token] = counts.get(token, 0) + times
    found.tokenizer.release()
    return counts


def _text(token: bytes) -> str:
    return token.decode("utf-8", "backslashreplace")


def shown(found: Extended) -> Sequence[tuple[int, str, tuple[str, ...]]]:
    """Return id, token and the tokens whose place it takes, for each new token."""
    readable = found.tokenizer.vocabulary.readable
    return [
        (found.first + n, readable(found.first + n), tuple(map(readable, parts))) for n, parts in enumerate(found.parts)
    ]
