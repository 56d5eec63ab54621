"""The choice of tokens for a plan, and trims of a tokenizer that a model is about to get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.checkpoint.configs import edit_config, edit_generation_config, needed_ids
from tokswap.checkpoint.id_map import KeptIds
from tokswap.distributed import LOCAL, Backend
from tokswap.errors import InputError
from tokswap.tokenizer.alignment import Reason
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer
from tokswap.trim.chat import render_chats
from tokswap.trim.corpora import find_corpus
from tokswap.trim.ids import map_file, read_map
from tokswap.trim.options import TrimChoice
from tokswap.trim.rebuild import rebuilt
from tokswap.trim.selection import Selection, select

_CHAT_REFUSED = "refuses plain conversations: name the tokens that it writes with --keep-token"


@dataclass(frozen=True)
class TrimmedTarget:
    """A trimmed target tokenizer, with the configs of the model that owns it in the new ids.

    Attributes:
        tokenizer: The trimmed tokenizer.
        kept: Row of each token in the owner's matrices, int64 [V_new].
        config: config.json of the owner.
        generation: generation_config.json of the owner.
        map_file: Content of vocab_map.json.
        notes: What the user should know.
    """

    tokenizer: Tokenizer
    kept: np.ndarray
    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    map_file: bytes
    notes: tuple[str, ...]


def trim_target(
    tokenizer: Tokenizer,
    config: Mapping[str, Any],
    generation: Mapping[str, Any],
    choice: TrimChoice,
    *,
    texts: Sequence[str] = (),
    multiple: int | None = None,
    backend: Backend = LOCAL,
    progress: bool = False,
) -> TrimmedTarget:
    """Trim a tokenizer that a model is about to get.

    Args:
        tokenizer: The target tokenizer.
        config: config.json of the model that owns it, {} if unknown.
        generation: generation_config.json of that model, {} if unknown.
        choice: Which tokens to keep.
        texts: Texts that the model reads before others, such as prompts.
        multiple: The rows will be filled up to a multiple of it.
        backend: Where corpora are counted.
        progress: Whether to show a progress bar.
    """
    choice.check_choice()
    vocabulary = tokenizer.vocabulary
    named = {**needed_ids(config), **needed_ids(generation)}
    needed = {token for token in named if 0 <= token < len(vocabulary)}
    selection = counted(choice, tokenizer, needed, texts=texts, multiple=multiple, backend=backend, progress=progress)
    trimmed = rebuilt(tokenizer, selection.ids.tolist())
    new_of = {old: new for new, old in enumerate(trimmed.kept.tolist())}
    ids = KeptIds(vocabulary, trimmed.tokenizer.vocabulary, new_of)
    model = edit_config(config, ids, len(trimmed.kept)) if config else None
    edited = edit_generation_config(generation, ids)
    note = f"the target vocabulary is trimmed first, from {len(vocabulary):,} to {len(trimmed.kept):,} ids"
    return TrimmedTarget(
        tokenizer=trimmed.tokenizer,
        kept=trimmed.kept,
        config=model.config if model else {},
        generation=edited.config,
        map_file=map_file(trimmed.kept, len(vocabulary)),
        notes=(*selection.notes, *(model.notes if model else ()), *edited.notes, note),
    )


def counted(
    choice: TrimChoice,
    tokenizer: Tokenizer,
    needed: set[int],
    *,
    texts: Sequence[str] = (),
    extra_rows: int = 0,
    multiple: int | None = None,
    backend: Backend = LOCAL,
    progress: bool = False,
) -> Selection:
    """Count the corpora and decide which ids to keep.

    Args:
        choice: What the user asks to keep.
        tokenizer: The tokenizer to trim.
        needed: Ids that the model's configs name.
        texts: Texts that the model reads before others, such as prompts.
        extra_rows: Rows of the target size that are not tokens.
        multiple: The rows will be filled up to a multiple of it.
        backend: Where corpora are counted.
        progress: Whether to show a progress bar.
    """
    from tqdm.auto import tqdm

    if choice.target_size is not None and multiple is not None and choice.target_size % multiple:
        # Padding counts: the tokens must leave room for the rows that fill up to the multiple.
        choice = replace(choice, target_size=max(choice.target_size // multiple * multiple, 1))
    chats = render_chats(tokenizer)
    plain, others = (
        {token for row in tokenizer.encode_batch(texts) for token in row} for texts in (chats.plain, chats.others)
    )
    refused = tuple(f"the chat template {name!r} {_CHAT_REFUSED}" for name in chats.refusing)
    total = sum(find_corpus(spec).nbytes for spec in choice.corpora)
    with tqdm(total=total, desc="count", unit="B", unit_scale=True, disable=None if progress else True) as bar:
        selection = select(
            choice,
            tokenizer,
            needed | plain | text_ids(texts, tokenizer),
            wanted=others,
            extra_rows=extra_rows,
            backend=backend,
            progress=bar.update,
        )
    return replace(selection, notes=(*refused, *selection.notes))


def text_ids(texts: Sequence[str], tokenizer: Tokenizer) -> set[int]:
    """Return the tokens of texts, and those that they name.

    sentence-transformers looks a prompt such as `[unused0]` up in the vocabulary, where the tokenizer would split it.

    Args:
        texts: The texts.
        tokenizer: The tokenizer.
    """
    words = {word for text in texts for word in (text, *text.split())}
    named = {token for word in words if (token := tokenizer.vocabulary.id_of_text.get(word)) is not None}
    return named.union(*tokenizer.encode_batch(list(texts)))


def as_in(folder: Path, tokenizer: Tokenizer, needed: set[int]) -> Selection:
    """Keep what another trim has kept. Raises InputError not-alike."""
    new_of = read_map(folder).new_of
    other = read_tokenizer(folder).vocabulary
    kept = {old: new for old, new in new_of.items() if new < len(other)}
    text = tokenizer.vocabulary.text
    wrong = [old for old, new in kept.items() if old >= len(text) or text[old] != other.text[new]]
    if wrong or not needed.issubset(kept):
        raise InputError(
            "not-alike",
            f"id {wrong[0]} is another token there"
            if wrong
            else f"the model needs the token {text[min(needed - set(kept))]!r}, which is not there",
            "--like takes the result of a trim of a model with the same tokenizer",
            folder=folder,
        )
    ids = np.array(sorted(kept), np.int64)
    return Selection(ids, np.full(len(ids), Reason.FORCED, np.uint8), least=len(ids))
