"""Text that the teacher writes itself: for healing without a text at hand, and beyond its domain."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tokswap.heal.text import Passage, Side
from tokswap.storage.atomic import replace_file, write_error
from tokswap.storage.documents import documents

NAME = "written by the teacher"
_TOKENS, _TOP, _SEED_TOKENS, _BATCH = 288, 100, 8, 48
_FREE = 4
"""Every n-th text begins with nothing but bos; the others begin as a passage of the user's text does."""


def cached_text(path: Path, texts: Callable[[], Iterable[tuple[str, str]]]) -> list[tuple[str, str]]:
    """Return texts from a file of JSON lines, which is written first where it is not there.

    The file can be given to another run as its text.

    Args:
        path: The file.
        texts: Makes the texts with their names.

    Raises:
        OutputError: disk-full, cannot-write.
    """
    if not path.is_file():
        lines = [json.dumps({"text": text}, ensure_ascii=False) for _, text in texts()]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, "".join(f"{line}\n" for line in lines).encode("utf-8"))
        except OSError as error:
            raise write_error(error, path) from error
    return [(NAME, text) for text, _ in documents(path, "text")]


def write_text(
    teacher: Any, side: Side, passages: Sequence[Passage], size: int, *, seed: int = 0
) -> Iterator[tuple[str, str]]:
    """Let the teacher write texts, by sampling.

    Args:
        teacher: The model, in evaluation mode.
        side: How it reads text.
        passages: Passages whose beginnings it goes on with; none where there is no text.
        size: Bytes to write.
        seed: Seed of the sampling.

    Yields:
        A name, and a text.
    """
    random = np.random.default_rng(seed)
    written = 0
    while written < size:
        free = not passages or random.random() < 1 / _FREE
        if free and side.lead:
            rows = np.tile(np.array(side.lead, np.int64), (_BATCH, 1))
        elif passages:
            some = [passages[n].teacher.ids for n in random.integers(len(passages), size=_BATCH).tolist()]
            rows = np.array([[*side.lead, *_first(ids)] for ids in some], np.int64)
        else:  # no bos and no text: begin with tokens that stand for text
            pieces = np.flatnonzero(side.tokenizer.vocabulary.pieces)
            rows = random.choice(pieces, size=(_BATCH, 1)).astype(np.int64)
        for ids in _sampled(teacher, rows, side, int(random.integers(1 << 30))):
            text = _text(side, ids)
            written += len(text.encode("utf-8"))
            if text.strip():
                yield NAME, text
            if written >= size:
                return


def _first(ids: np.ndarray) -> list[int]:
    """Return as many first ids as every seed has; a short passage is repeated."""
    return [int(token) for token in np.resize(ids, _SEED_TOKENS)]


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

    with torch.inference_mode():
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
