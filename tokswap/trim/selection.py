"""Which tokens to keep: corpora, lists of words, scripts and single tokens in; a closed set of ids out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.distributed import LOCAL, Backend
from tokswap.errors import InputError, UsageError, did_you_mean
from tokswap.tokenizer.alignment import Reason
from tokswap.tokenizer.post_processor import template_ids
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind
from tokswap.trim.closure import closed, pruned
from tokswap.trim.corpora import Counts, count, find_corpus
from tokswap.trim.rebuild import forced_ids, parts_of
from tokswap.trim.words import language, read_words, script_tokens, surroundings, weigh

_ENGLISH = 10_000
_FOREIGN = 0.4
"""Below this share of words that its language knows, a corpus is probably in another one."""


@dataclass(frozen=True)
class Choice:
    """What a user asks to keep; see `plan_trim` for the fields."""

    corpora: Sequence[str] = ()
    languages: Sequence[str] = ()
    words: Sequence[str] = ()
    scripts: Sequence[str] = ()
    keep_tokens: Sequence[str] = ()
    drop_tokens: Sequence[str] = ()
    target_size: int | None = None
    min_count: int = 1
    coverage: float | None = None
    field: str = "text"

    def check(self) -> None:
        """Raise UsageError nothing-to-keep, bad-target-size, bad-minimum, bad-coverage."""
        if not (self.corpora or self.languages or self.words or self.scripts or self.keep_tokens):
            hint = "name a --corpus, a --lang, a list of --words, a --keep-script or a --keep-token"
            raise UsageError("nothing-to-keep", "nothing says which tokens to keep", hint)
        if self.target_size is not None and self.target_size < 1:
            raise UsageError("bad-target-size", f"--target-size takes a positive number, not {self.target_size}")
        if self.min_count < 1:
            raise UsageError("bad-minimum", f"--min-count takes a number from 1, not {self.min_count}")
        if self.coverage is not None and not 0 < self.coverage <= 1:
            raise UsageError("bad-coverage", f"--coverage is a share between 0 and 1, not {self.coverage}")

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for the plan."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class CorpusFacts:
    """What a selection means for one corpus or list of words.

    kept: share of its tokens that are kept. once: share that occur a single time, which is about how often a new text of
    its kind needs a token that this corpus does not have (Good and Turing); None for a list of words.
    """

    name: str
    bytes: int
    tokens: float
    distinct: int
    kept: float
    once: float | None


@dataclass(frozen=True)
class Selection:
    """A closed set of ids. ids: int64[n], ascending. reason: uint8[n]: OBSERVED, FORCED or SCAFFOLD.

    least: ids without which nothing works. corpora: facts for the report. sample: texts to verify the result with.
    """

    ids: np.ndarray
    reason: np.ndarray
    least: int
    corpora: tuple[CorpusFacts, ...]
    sample: tuple[str, ...]


def select(
    choice: Choice,
    tokenizer: Tokenizer,
    needed: Collection[int],
    notes: list[str],
    *,
    extra_rows: int = 0,
    backend: Backend = LOCAL,
    progress: Callable[[int], object] = lambda n: None,
) -> Selection:
    """Decide which ids to keep.

    needed: ids that the model's configs and chat template use, besides what the tokenizer itself needs. extra_rows: rows of
    the target size that are no token. backend: where corpora are counted. notes: grows by warnings. progress: told the bytes of text as they are counted.
    Raises UsageError: unknown-token, unknown-script, unknown-language, needed-token; InputError: target-too-small, and
    what `count` raises.
    """
    vocabulary = tokenizer.vocabulary
    dropped = _dropped(choice, tokenizer, needed)
    forced = (forced_ids(tokenizer) | set(needed)) - dropped
    forced |= {_token(text, tokenizer) for text in choice.keep_tokens}
    forced |= set(script_tokens(list(choice.scripts), vocabulary)) if choice.scripts else set()
    corpora = [find_corpus(spec) for spec in choice.corpora]
    languages = [language(code) for code in choice.languages]
    lists: list[Counts] = []
    for found in languages:
        own = weigh(f"words of `{found.code}`", found.words, tokenizer, spaced=found.spaced)
        around = np.zeros(len(vocabulary))
        around[surroundings(found, vocabulary)] = min(found.words.values())
        lists.append(Counts(own.name, own.counts + around, own.bytes, own.minimum, own.sample))
    if languages and "en" not in choice.languages:  # texts of every language have some English in them
        lists.append(weigh("frequent words of `en`", language("en", _ENGLISH).words, tokenizer))
    lists += [weigh(name, read_words(Path(name)), tokenizer) for name in choice.words]
    counted = [count(corpus, tokenizer, key=choice.field, backend=backend, progress=progress) for corpus in corpora]
    _check_languages(languages, counted, notes)
    score, observed = np.zeros(len(vocabulary)), set()
    for counts in (*counted, *lists):
        score = np.maximum(score, counts.counts / counts.total)
        observed |= _frequent(counts, choice.min_count, choice.coverage)
    observed -= forced | dropped
    parts = parts_of(tokenizer, observed | forced)
    least = closed(parts, forced)
    kept = closed(parts, observed | forced)
    if choice.target_size is not None:
        kept = _fitted(choice.target_size - extra_rows, parts, kept, least, score, extra_rows, notes)
    ids = np.array(sorted(kept), np.int64)
    reason = np.full(len(ids), Reason.SCAFFOLD, np.uint8)
    reason[np.isin(ids, list(observed))] = Reason.OBSERVED
    reason[np.isin(ids, list(forced))] = Reason.FORCED
    facts = tuple(_facts(counts, ids) for counts in (*counted, *lists))
    sample = tuple(block for counts in (counted or lists) for block in counts.sample)
    return Selection(ids, reason, len(least), facts, sample)


def _frequent(counts: Counts, min_count: int, coverage: float | None) -> set[int]:
    """The tokens of a corpus that occur often enough, and no more of them than a share of its text needs."""
    minimum = (counts.minimum or min_count) if counts.is_text else 0
    order = np.argsort(-counts.counts, kind="stable")
    order = order[counts.counts[order] > 0]
    if coverage is not None:
        reached = np.cumsum(counts.counts[order]) / counts.total
        order = order[: 1 + int(np.searchsorted(reached, coverage - 1e-12))]
    return set(order[counts.counts[order] >= minimum].tolist())


def _fitted(
    size: int,
    parts: dict[int, tuple[int, ...]],
    kept: set[int],
    least: set[int],
    score: np.ndarray,
    extra_rows: int,
    notes: list[str],
) -> set[int]:
    if size < len(least):
        raise InputError(
            "target-too-small",
            f"{size + extra_rows:,} rows are too few: control tokens, bytes, what was named to be kept and their parts "
            f"take {len(least) + extra_rows:,}",
            f"give a --target-size of {len(least) + extra_rows:,} or more",
        )
    if size > len(kept):
        notes.append(
            f"the result has {len(kept) + extra_rows:,} rows, fewer than --target-size: no further token occurs"
        )
    return pruned(parts, kept, least, score, size)


def _token(text: str, tokenizer: Tokenizer) -> int:
    """The id of a token that a user has named, spelt as the tokenizer does or as the text that it stands for."""
    vocabulary = tokenizer.vocabulary
    token = vocabulary.id_of_text.get(text, vocabulary.id_of.get(text.encode("utf-8", "surrogateescape")))
    if token is None:
        hint = "write it as it stands in tokenizer.json, or as the text that it stands for"
        near = did_you_mean(text, [known for known in vocabulary.text if known.startswith(("<", "["))])
        raise UsageError("unknown-token", f"the tokenizer has no token {text!r}.{near}", hint)
    return token


def _dropped(choice: Choice, tokenizer: Tokenizer, needed: Collection[int]) -> set[int]:
    """The control tokens that the user gives up. Raises UsageError needed-token."""
    roles = tokenizer.vocabulary.roles
    spelling = forced_ids(tokenizer) - set(np.flatnonzero(tokenizer.vocabulary.kind == Kind.SPECIAL).tolist())
    dropped = set()
    for text in choice.drop_tokens:
        token = _token(text, tokenizer)
        why = (
            f"it is the tokenizer's {' and '.join(tokenizer.vocabulary.roles_of(token))} token"
            if token in roles.values()
            else "the model's config or chat template uses it"
            if token in needed
            else "the tokenizer cannot spell or frame a text without it"
            if token in spelling or token in template_ids(tokenizer.spec)
            else "--keep-token names it too"
            if text in choice.keep_tokens
            else ""
        )
        if why:
            raise UsageError(
                "needed-token", f"the token {text!r} cannot be dropped: {why}", "leave out this --drop-token"
            )
        dropped.add(token)
    return dropped


def _check_languages(languages: list[Any], counted: list[Counts], notes: list[str]) -> None:
    """Warn of a corpus that is in none of the languages that were asked for."""
    for counts in counted if languages else ():
        text = "".join(counts.sample)[: 1 << 18]
        words, known = max((found.knows(text) for found in languages), key=lambda pair: pair[1] / max(pair[0], 1))
        if words and known < _FOREIGN * words:
            names = " or ".join(found.code for found in languages)
            notes.append(
                f"`{counts.name}` may be in another language: of {words:,} words in a sample of it, {known:,} "
                f"({100 * known / words:.0f} %) are in the word list of {names}"
            )


def _facts(counts: Counts, ids: np.ndarray) -> CorpusFacts:
    return CorpusFacts(
        counts.name,
        counts.bytes,
        float(counts.total),
        int(np.count_nonzero(counts.counts)),
        float(counts.counts[ids].sum() / counts.total),
        float(np.count_nonzero(counts.counts == 1) / counts.total) if counts.is_text else None,
    )
