"""Which tokens to keep: corpora, lists of words, scripts and single tokens in; a closed set of ids out."""

from __future__ import annotations

import glob
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from tokswap.distributed import LOCAL, Backend, Done
from tokswap.errors import InputError, UsageError, did_you_mean
from tokswap.tokenizer.alignment import Reason
from tokswap.tokenizer.languages import Language, language, script_tokens
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.trim.closure import closed, pruned
from tokswap.trim.corpora import Counts, count, find_corpus
from tokswap.trim.options import TrimChoice
from tokswap.trim.rebuild import added_ids, forced_ids, parts_of, spelling_ids
from tokswap.trim.windows import Window
from tokswap.trim.words import read_words, weigh, weigh_language

_ENGLISH = 10_000
"""How many English words are kept beside those of another language."""
_FOREIGN = 0.4
"""A corpus is probably in another language if a smaller share of its words than this is in the word list."""
_CURVE = (0.95, 0.99, 1.0)
"""Shares of a corpus for which the plan tells how many tokens they need."""
_SAMPLE = 1 << 18
"""Characters of a corpus that are searched for words of a language."""


@dataclass(frozen=True)
class CorpusFacts:
    """What a selection means for one corpus or list of words.

    Attributes:
        name: Name of the corpus or list.
        bytes: Size of its text, in bytes of UTF-8.
        tokens: Number of its tokens, or sum of the weights of a list.
        distinct: Number of different tokens.
        kept: Share of its tokens that are kept.
        once: Share of its tokens that occur only once, None for a list of words. A new text of the same kind needs a
            token that this corpus lacks about as often (Good-Turing estimate).
        curve: How many of its most frequent tokens make 95, 99 and 100 % of it, and how many of its tokens are kept:
            shares and numbers of tokens.
    """

    name: str
    bytes: int
    tokens: float
    distinct: int
    kept: float
    once: float | None
    curve: tuple[tuple[float, int], ...]


@dataclass(frozen=True)
class Selection:
    """A closed set of ids.

    Attributes:
        ids: The ids to keep, ascending (int64 [n]).
        reason: OBSERVED, FORCED or MERGE_DEPENDENCY for each of them (uint8 [n]), see `Reason`.
        least: Number of ids that any choice keeps.
        corpora: What the selection means for each corpus and list of words.
        sample: Texts to verify the result with.
        notes: Warnings for the user.
    """

    ids: np.ndarray
    reason: np.ndarray
    least: int
    corpora: tuple[CorpusFacts, ...] = ()
    sample: tuple[Window, ...] = ()
    notes: tuple[str, ...] = ()


def select(
    choice: TrimChoice,
    tokenizer: Tokenizer,
    needed: Collection[int],
    *,
    wanted: Collection[int] = (),
    extra_rows: int = 0,
    backend: Backend = LOCAL,
    progress: Done = lambda nbytes: None,
) -> Selection:
    """Decide which ids to keep.

    Args:
        choice: What the user asks to keep.
        tokenizer: The tokenizer to trim.
        needed: Ids that the configs and plain chats of the model use, besides what the tokenizer itself needs.
        wanted: Ids that other chats use, with tools or images; the user can drop added tokens among them.
        extra_rows: Rows of the target size that are not tokens.
        backend: Where to count corpora.
        progress: Called with the number of bytes each time some text is counted.

    Raises:
        UsageError: unknown-token, unknown-script, unknown-language, bad-minimum, needed-token.
        InputError: target-too-small, missing-corpus, and what `count` and `read_words` raise.
        ClusterError: what `Backend.map` raises.
    """
    dropped = _dropped(choice, tokenizer, needed)
    forced = _forced(choice, tokenizer, {*needed, *wanted}, dropped)
    corpora = [find_corpus(spec) for spec in choice.corpora]
    languages = [language(code) for code in choice.languages]
    lists = _word_lists(choice, languages, tokenizer)
    texts = [count(corpus, tokenizer, key=choice.field, backend=backend, progress=progress) for corpus in corpora]
    counted = [*texts, *lists]
    observed: set[int] = set().union(*(_frequent(counts, choice.min_count, choice.coverage) for counts in counted))
    observed -= forced | dropped
    parts = parts_of(tokenizer, observed | forced)
    least, kept = closed(parts, forced), closed(parts, observed | forced)
    notes = _foreign(languages, texts) + _dropped_notes(tokenizer, dropped & set(wanted))
    if choice.target_size is not None:
        _check_size(choice.target_size, len(least) + extra_rows)
        notes += _size_notes(choice.target_size, len(kept) + extra_rows)
        kept = pruned(parts, kept, least, _scores(counted, len(tokenizer.vocabulary)), choice.target_size - extra_rows)
    ids = np.array(sorted(kept), np.int64)
    reason = np.full(len(ids), Reason.MERGE_DEPENDENCY, np.uint8)
    reason[np.isin(ids, list(observed))] = Reason.OBSERVED
    reason[np.isin(ids, list(forced))] = Reason.FORCED
    return Selection(
        ids,
        reason,
        len(least),
        corpora=tuple(_facts(counts, ids) for counts in counted),
        sample=tuple(window for counts in (texts or lists) for window in counts.sample),
        notes=notes,
    )


def _forced(choice: TrimChoice, tokenizer: Tokenizer, used: set[int], dropped: set[int]) -> set[int]:
    """The ids that are kept whatever the texts use."""
    forced = (forced_ids(tokenizer) | used) - dropped
    forced |= {_token(text, tokenizer) for text in choice.keep_tokens}
    if choice.scripts:
        forced |= set(script_tokens(list(choice.scripts), tokenizer.vocabulary))
    return forced


def _word_lists(choice: TrimChoice, languages: Sequence[Language], tokenizer: Tokenizer) -> list[Counts]:
    """The weights of each language and of each list of words."""
    lists = [weigh_language(found, tokenizer) for found in languages]
    if languages and "en" not in choice.languages:  # texts of every language contain some English
        lists.append(weigh("frequent words of `en`", language("en", _ENGLISH).words, tokenizer))
    return lists + [weigh(str(name), read_words(name, choice.field), tokenizer) for name in choice.words]


def _frequent(counts: Counts, min_count: int, coverage: float | None) -> set[int]:
    """The tokens that occur often enough, the most frequent first, until they cover the share of the text."""
    minimum = (counts.minimum or min_count) if counts.is_text else 0
    order = np.argsort(-counts.counts, kind="stable")
    order = order[counts.counts[order] > 0]
    if coverage is not None:
        reached = np.cumsum(counts.counts[order]) / counts.total
        order = order[: 1 + int(np.searchsorted(reached, coverage - 1e-12))]
    return set(order[counts.counts[order] >= minimum].tolist())


def _scores(counted: Sequence[Counts], size: int) -> np.ndarray:
    """The largest share that each token has in any corpus or list (float64 [V])."""
    score = np.zeros(size)
    for counts in counted:
        score = np.maximum(score, counts.counts / counts.total)
    return score


def _check_size(target: int, least: int) -> None:
    if target < least:
        raise InputError(
            "target-too-small",
            f"{target:,} rows are too few: added tokens, bytes, named tokens and their merge dependencies take "
            f"{least:,}",
            f"ask for {least:,} rows or more",
        )


def _size_notes(target: int, rows: int) -> tuple[str, ...]:
    if target > rows:
        return (f"the result has {rows:,} rows, fewer than asked for: no further token occurs",)
    return ()


def _token(text: str, tokenizer: Tokenizer) -> int:
    """The id of a token that a user names, as the tokenizer writes it or as the text that it stands for."""
    vocabulary = tokenizer.vocabulary
    token = vocabulary.find(text)
    if token is None:
        hint = "write it as it stands in tokenizer.json, or as the text that it stands for"
        near = did_you_mean(text, [known for known in vocabulary.text if known.startswith(("<", "["))])
        raise UsageError("unknown-token", f"the tokenizer has no token {text!r}{near}", hint)
    return token


def _dropped(choice: TrimChoice, tokenizer: Tokenizer, needed: Collection[int]) -> set[int]:
    """The tokens that the user gives up."""
    dropped: set[int] = set()
    if not choice.drop_tokens:
        return dropped
    spelling, kept = spelling_ids(tokenizer), {_token(text, tokenizer) for text in choice.keep_tokens}
    for text in choice.drop_tokens:
        for token in _matching(text, tokenizer, kept):
            why = _why_needed(token, tokenizer, needed, spelling)
            if not why and token in kept:
                why = "--keep-token names it"
            if why:
                message = f"the token {tokenizer.vocabulary.text[token]!r} cannot be dropped: {why}"
                raise UsageError("needed-token", message, "leave out this --drop-token")
            dropped.add(token)
    return dropped


def _matching(text: str, tokenizer: Tokenizer, kept: Collection[int]) -> list[int]:
    """The token with this name, or the added tokens that match the pattern and are not kept by name."""
    if "*" in text and tokenizer.vocabulary.find(text) is None:
        pattern = glob.escape(text).replace("[*]", "*")
        names = {token: tokenizer.vocabulary.text[token] for token in sorted(added_ids(tokenizer))}
        if found := [token for token, name in names.items() if fnmatchcase(name, pattern)]:
            return [token for token in found if token not in kept]
    return [_token(text, tokenizer)]


def _why_needed(token: int, tokenizer: Tokenizer, needed: Collection[int], spelling: Collection[int]) -> str:
    """Say who needs a token; "" if nothing does."""
    vocabulary = tokenizer.vocabulary
    if token in vocabulary.roles.values():
        return f"it is the tokenizer's {' and '.join(vocabulary.roles_of(token))} token"
    if token in needed:
        return "the model's config or chat template uses it"
    if token in spelling:
        return "the tokenizer cannot spell or frame a text without it"
    return ""


def _dropped_notes(tokenizer: Tokenizer, dropped: Collection[int]) -> tuple[str, ...]:
    """Warn where a chat with tools, images or the like can no longer be written."""
    if not dropped:
        return ()
    names = ", ".join(tokenizer.vocabulary.text[token] for token in sorted(dropped))
    return (f"chats with tools, images or the like can need what --drop-token drops: {names}",)


def _foreign(languages: Sequence[Language], texts: Sequence[Counts]) -> tuple[str, ...]:
    """Warn of each corpus that is in none of the languages of the user."""
    notes = []
    for counts in texts if languages else ():
        text = "".join(window.text for window in counts.sample)[:_SAMPLE]
        words, known = max((found.knows(text) for found in languages), key=lambda pair: pair[1] / max(pair[0], 1))
        if words and known < _FOREIGN * words:
            names = " or ".join(found.code for found in languages)
            notes.append(
                f"`{counts.name}` may be in another language: of {words:,} words in a sample of it, {known:,} "
                f"({100 * known / words:.0f} %) are in the word list of {names}"
            )
    return tuple(notes)


def _facts(counts: Counts, ids: np.ndarray) -> CorpusFacts:
    reached = np.cumsum(np.sort(counts.counts[counts.counts > 0])[::-1]) / counts.total
    kept = float(counts.counts[ids].sum() / counts.total)
    points = [(share, 1 + int(np.searchsorted(reached, share - 1e-12))) for share in _CURVE]
    return CorpusFacts(
        name=counts.name,
        bytes=counts.bytes,
        tokens=float(counts.total),
        distinct=int(np.count_nonzero(counts.counts)),
        kept=kept,
        once=float(np.count_nonzero(counts.counts == 1) / counts.total) if counts.is_text else None,
        curve=(*points, (kept, int(np.count_nonzero(counts.counts[ids])))),
    )
