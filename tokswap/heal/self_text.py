"""Text that the teacher writes itself: for healing without a text at hand, and beyond its domain."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tokswap.errors import InputError
from tokswap.evaluation.models import plain_generation
from tokswap.heal.team import Team
from tokswap.heal.text import Passage, Side
from tokswap.storage.atomic import CACHE, replace_file, write_error
from tokswap.storage.documents import documents
from tokswap.tokenizer.languages import Language

NAME = "written by the teacher"
Beginnings = Callable[[int], np.ndarray]
"""Returns the ids that so many texts begin with, or a few less, int64 [rows, n]."""

_TOKENS, _TOP, _BATCH = 288, 100, 48
_ROW_BYTES = 600
"""About what a text has, to begin no more of them than are needed."""
_SEED_TOKENS = 32
"""Tokens of the user's text to go on with. After 8, much of what went on with German or code was English."""
_GOLDEN = (5**0.5 - 1) / 2
_SEED_WORDS, _LEAST_LETTERS = 3, 4
"""Words of a language to go on with, long enough to belong to one language: after three, 15 of 16 texts stay in it."""


def cached_text(path: Path, texts: Callable[[], Iterable[str]], team: Team) -> list[tuple[str, str]]:
    """Return texts from a file of JSON lines, which is written first where it is not there.

    The file can be given to another run as its text.

    Args:
        path: The file.
        texts: Makes the texts.
        team: The processes that make them together; the leader writes them.

    Raises:
        OutputError: disk-full, cannot-write.
    """
    if team.shared(not path.is_file()):
        lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts()]
        try:
            if team.leads:
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, "".join(f"{line}\n" for line in lines).encode("utf-8"))
        except OSError as error:
            raise write_error(error, path, CACHE) from error
        team.wait()
    return [(NAME, text) for text, _ in documents(path, "text")]


def write_text(teacher: Any, side: Side, kinds: Sequence[Beginnings], size: int, *, seed: int = 0) -> Iterator[str]:
    """Let the teacher write texts, by sampling.

    Args:
        teacher: The model, in evaluation mode.
        side: How it reads text.
        kinds: What the texts begin with. Each kind gets the same share of the bytes.
        size: Bytes to write.
        seed: Seed of the sampling.

    Raises:
        InputError: text-too-small where the teacher writes nothing.
    """
    random = np.random.default_rng(seed)
    written = 0
    for n, beginnings in enumerate(kinds):
        wanted = size * (n + 1) // len(kinds)
        while written < wanted:
            before = written
            rows = beginnings(min(_BATCH, -(-(wanted - written) // _ROW_BYTES)))
            for ids in _sampled(teacher, rows, side, int(random.integers(1 << 30))):
                text = _text(side, ids)
                written += len(text.encode("utf-8"))
                if text.strip():
                    yield text
                if written >= wanted:
                    break
            if written == before:
                message = "the teacher writes nothing: it ends each text at once"
                raise InputError("text-too-small", message, "give a text instead of --self-text")


def beginnings_of(
    side: Side, passages: Sequence[Passage], languages: Sequence[Language], shares: np.ndarray, *, seed: int = 0
) -> list[Beginnings]:
    """Return what texts begin with: parts of the user's text, and words of each language.

    Args:
        side: How the teacher reads text.
        passages: Passages of the user's text; none where there is no text.
        languages: Languages to write in.
        shares: How often to go on with each passage, relative to others, float64 [n].
        seed: Seed of the choice.

    Returns:
        One for the text and one for each language; without any of them one that leaves the choice to the teacher.
    """
    random = np.random.default_rng(seed)
    kinds = [_of_text(side, passages, shares, random)] if passages else []
    kinds += [_of_words(side, language, random) for language in languages]
    return kinds or [_of_nothing(side, random)]


def _of_text(side: Side, passages: Sequence[Passage], shares: np.ndarray, random: np.random.Generator) -> Beginnings:
    """Begin as the user's text goes on somewhere."""
    ends = np.cumsum(shares)
    turns, begin = count(), random.random()
    tokens = _SEED_TOKENS if side.longest is None else min(_SEED_TOKENS, side.longest // 4)

    def some(rows: int) -> np.ndarray:
        found = []
        for _ in range(rows):
            # Multiples of the golden ratio: however many rows there are, they are spread evenly over the text.
            at = (begin + next(turns) * _GOLDEN) % 1.0 * ends[-1]
            ids = passages[int(np.searchsorted(ends, at, side="right"))].teacher.ids
            start = int(random.integers(max(len(ids) - tokens, 0) + 1))
            # A short passage is repeated: all rows have the same number of tokens.
            found.append([*side.lead, *np.resize(ids[start : start + tokens], tokens).tolist()])
        return np.array(found, np.int64)

    return some


def _of_words(side: Side, language: Language, random: np.random.Generator) -> Beginnings:
    """Begin with frequent words of a language."""
    least = _LEAST_LETTERS if language.spaced else 1
    words = [word for word in language.words if len(word) >= least]
    gap = " " if language.spaced else ""

    def some(rows: int) -> np.ndarray:
        drawn = random.choice(words, (16 * rows, _SEED_WORDS)).tolist()
        ids = side.tokenizer.encode_batch([gap.join([first.capitalize(), *rest]) for first, *rest in drawn])
        usual = Counter(map(len, ids)).most_common(1)[0][0]
        return np.array([[*side.lead, *one] for one in ids if len(one) == usual][:rows], np.int64)

    return some


def _of_nothing(side: Side, random: np.random.Generator) -> Beginnings:
    """Begin with bos alone, or with any token of text where there is no bos."""
    pieces = np.flatnonzero(side.tokenizer.vocabulary.pieces)

    def some(rows: int) -> np.ndarray:
        if side.lead:
            return np.tile(np.array(side.lead, np.int64), (rows, 1))
        return random.choice(pieces, size=(rows, 1)).astype(np.int64)

    return some


def _sampled(teacher: Any, rows: np.ndarray, side: Side, seed: int) -> list[list[int]]:
    """Continue each row; returns the ids without what comes before every text."""
    longest = _TOKENS if side.longest is None else min(_TOKENS, side.longest - rows.shape[1])
    inputs = torch.from_numpy(rows).to(teacher.device)
    pad = side.tokenizer.vocabulary.roles.get("pad", side.tokenizer.vocabulary.roles.get("eos", 0))
    random = torch.Generator(teacher.device).manual_seed(seed)

    def chosen(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Sample one of the likeliest tokens, and leave no other: several times faster than to sample from all."""
        best, ids = scores.topk(min(_TOP, scores.shape[1]))
        one = torch.multinomial(best.softmax(-1), 1, generator=random)
        return scores.zero_().scatter_(1, ids.gather(1, one), 1.0)

    with torch.no_grad(), plain_generation(teacher):
        found = teacher.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            do_sample=False,
            num_beams=1,
            temperature=1.0,
            top_p=1.0,
            logits_processor=[chosen],
            max_new_tokens=longest,
            pad_token_id=pad,
        )
    return [row[len(side.lead) :] for row in found.tolist()]


def _text(side: Side, ids: Sequence[int]) -> str:
    """Return the text of ids up to the first that does not stand for text."""
    vocabulary = side.tokenizer.vocabulary
    kept = []
    for token in ids:
        if token >= len(vocabulary) or vocabulary.kind[token] not in (0, 2):
            break
        kept.append(vocabulary.token_bytes[token])
    return b"".join(kept).decode("utf-8", "ignore").lstrip(" ")
