"""Room for new tokens at a constant size: the old tokens that a corpus uses least go."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokswap.checkpoint.modules import fixed_texts
from tokswap.checkpoint.source import SourceModel
from tokswap.errors import InputError
from tokswap.extend.options import ExtendOptions
from tokswap.extend.splice import Extended
from tokswap.report.wording import share
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.trim.chat import render_chats
from tokswap.trim.closure import closed, pruned
from tokswap.trim.corpora import count, find_corpus
from tokswap.trim.rebuild import forced_ids, parts_of, rebuilt
from tokswap.trim.target import text_ids


@dataclass(frozen=True)
class Base:
    """The tokenizer that new tokens are added to.

    Attributes:
        tokenizer: The tokenizer.
        kept: The source id of each of its ids, ascending (int64 [V]).
        dropped: How many ids of the source it lacks.
        notes: What the user should know.
    """

    tokenizer: Tokenizer
    kept: np.ndarray
    dropped: int = 0
    notes: tuple[str, ...] = ()


def base_of(source: SourceModel) -> Base:
    """Return the tokenizer of a model as it is."""
    return Base(source.tokenizer, np.arange(len(source.tokenizer.vocabulary)))


def with_room(source: SourceModel, found: Extended, options: ExtendOptions) -> Base:
    """Drop as many tokens as are new, those that the corpora use least.

    Tokens stay that the tokenizer, the configs, the chat template or a new token needs, with their merge dependencies.

    Args:
        source: The source model.
        found: Its tokenizer with the new tokens.
        options: What the user asked for.

    Raises:
        InputError: no-room.
    """
    tokenizer = source.tokenizer
    vocabulary = tokenizer.vocabulary
    chats = render_chats(tokenizer)
    checkpoint = source.checkpoint
    forced = forced_ids(tokenizer) | {token for token in checkpoint.named_ids if 0 <= token < len(vocabulary)}
    forced |= {token for row in tokenizer.encode_batch([*chats.plain, *chats.others]) for token in row}
    forced |= text_ids(fixed_texts(checkpoint.config, checkpoint.modules, checkpoint.processors), tokenizer)
    forced |= {part for own in found.parts for part in own if part < found.first}
    every = [token for token, text in enumerate(vocabulary.text) if text]
    parts = parts_of(tokenizer, every)
    score = np.zeros(len(vocabulary))
    for spec in options.corpora:
        counts = count(find_corpus(spec), tokenizer, key=options.field)
        score = np.maximum(score, counts.counts / counts.total)
    size = len(every) - len(found)
    kept = pruned(parts, every, closed(parts, forced), score, size)
    if len(kept) > size:
        raise InputError(
            "no-room",
            f"only {len(every) - len(kept):,} tokens can be dropped, and {len(found):,} are new",
            "add fewer tokens, or leave out --replace",
        )
    lost = float(sum(score[token] for token in set(every) - kept))
    trimmed = rebuilt(tokenizer, kept)
    note = (
        f"{len(found):,} old tokens make room; they are {share(lost)} of the tokens of the corpus, and texts that "
        "need them are tokenized differently"
    )
    return Base(trimmed.tokenizer, trimmed.kept, dropped=len(every) - len(kept), notes=(note,))
