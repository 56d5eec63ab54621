"""Lists of words in place of a corpus: each word is weighed with the tokens that it needs in any place of a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from tokswap.errors import InputError
from tokswap.storage.documents import whole_documents
from tokswap.tokenizer.languages import Language, surroundings
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.trim.corpora import Counts
from tokswap.trim.windows import Window

_GROUP = 200
"""Words that are tokenized as one text."""
_BATCH = 100
"""Groups that are tokenized at once."""
_SAMPLE = 500
"""Groups that are kept to verify the result with."""


def read_words(path: str | Path, field: str = "text") -> dict[str, float]:
    """Read a list of words.

    Args:
        path: Files with one word a line or record. A tab and a weight can follow the word.
        field: Name of the text field in JSON lines and parquet files.

    Returns:
        Word -> weight, 1 if the file names none. The weights of a repeated word add up.

    Raises:
        InputError: bad-text, empty-corpus, missing-field, missing-extra.
    """
    lines = [line for text in whole_documents(path, field) for line in text.splitlines()]
    words: dict[str, float] = {}
    for number, line in enumerate(lines, 1):
        word, tab, weight = line.strip().partition("\t")
        try:
            value = float(weight) if tab else 1.0
        except ValueError as error:
            hint = "write WORD, or WORD, a tab and a number"
            message = f"the weight in line {number:,} is not a number: {weight!r}"
            raise InputError("bad-text", message, hint, file=path) from error
        if word:
            words[word] = words.get(word, 0.0) + value
    if not words:
        raise InputError("empty-corpus", "there is no word in this list", "write one word a line", file=path)
    return words


def weigh(name: str, words: Mapping[str, float], tokenizer: Tokenizer, *, spaced: bool = True) -> Counts:
    """Weigh the tokens of a list of words.

    Each word is tokenized after a space and at the start of a line, in lower, title and upper case. Words of similar
    weight are tokenized together, as one text.

    Args:
        name: Name of the list.
        words: Word -> weight.
        tokenizer: The tokenizer to use.
        spaced: Whether the language puts spaces between words.

    Returns:
        Weights of the tokens (float64 [V]).
    """
    weights = np.zeros(len(tokenizer.vocabulary))
    entries = sorted(words.items(), key=lambda entry: -entry[1])
    groups = [entries[start : start + _GROUP] for start in range(0, len(entries), _GROUP)]
    for start in range(0, len(groups), _BATCH):
        texts: list[str] = []
        shares: list[float] = []
        for group in groups[start : start + _BATCH]:
            found = _spellings([word for word, _ in group], spaced)
            texts += found
            shares += [sum(share for _, share in group) / len(group)] * len(found)
        rows = tokenizer.encode_batch(texts)
        ids = np.fromiter(chain.from_iterable(rows), np.int64)
        weights += np.bincount(ids, np.repeat(shares, [len(row) for row in rows]), len(weights))
    joint = " " if spaced else ""
    sample = tuple(Window(joint.join(word for word, _ in group) + "\n") for group in groups[:_SAMPLE])
    return Counts(name, weights, sum(len(word.encode("utf-8", "replace")) for word in words), sample=sample)


def weigh_language(found: Language, tokenizer: Tokenizer) -> Counts:
    """Weigh the tokens of the words of a language, and of its `surroundings` like its rarest word.

    Args:
        found: The language.
        tokenizer: The tokenizer to use.

    Returns:
        Weights of the tokens (float64 [V]).
    """
    own = weigh(f"words of `{found.code}`", found.words, tokenizer, spaced=found.spaced)
    around = np.zeros(len(tokenizer.vocabulary))
    around[surroundings(found, tokenizer.vocabulary)] = min(found.words.values())
    return replace(own, counts=own.counts + around)


def _spellings(words: list[str], spaced: bool) -> list[str]:
    """Return texts that show some words in all their places and cases."""
    title, upper = [word[:1].upper() + word[1:] for word in words], [word.upper() for word in words]
    texts = ["\n".join(words)]
    if spaced:  # signs follow some words, because SentencePiece BPE can merge a comma with the end of a word
        texts += [" " + " ".join(words), ", ".join(words) + ". ".join(words) + "."]
    if title != words:
        texts += ["\n".join(title), *([" " + " ".join(form) for form in (title, upper)] if spaced else [])]
    return texts
