"""What the options of a transplant mean for two vocabularies: rows, pairs of tokens, bos, and which tables are written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tokswap.checkpoint.matrices import configs, head_name, text_config
from tokswap.checkpoint.reader import Checkpoint
from tokswap.checkpoint.writer import MatrixEdit, untied
from tokswap.errors import UsageError, did_you_mean
from tokswap.tokenizer.alignment import Alignment
from tokswap.tokenizer.schema import MOST_IDS
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Vocabulary


def matrix_rows(vocab_size: str | int, multiple: int | None, tokens: int, target_config: Mapping[str, Any]) -> int:
    """Return the rows of the result's tables.

    vocab_size: "match" (as many as the tokenizer's own model has, by `target_config`), "tight" (one for each of `tokens` ids)
    or a number. multiple: round up to one of it. Raises UsageError bad-vocab-size.
    """
    if vocab_size == "match":
        owner = text_config(target_config)[1]["vocab_size"] if target_config else tokens
        rows = max(tokens, owner)
    elif vocab_size == "tight":
        rows = tokens
    else:
        try:
            rows = int(vocab_size)
        except ValueError as error:
            raise UsageError(
                "bad-vocab-size", f"--vocab-size is match, tight or a number, not {vocab_size!r}"
            ) from error
        if rows < tokens:
            raise UsageError("bad-vocab-size", f"{rows:,} rows are too few: the tokenizer has {tokens:,} ids")
    if multiple is not None:
        if multiple < 1:
            raise UsageError("bad-vocab-size", f"--pad-to-multiple takes a positive number, not {multiple}")
        rows = -(-rows // multiple) * multiple
    if rows > MOST_IDS:
        raise UsageError("bad-vocab-size", f"{rows:,} rows are more than any vocabulary has")
    return rows


def read_token_map(pairs: Sequence[str], target: Vocabulary, source: Vocabulary) -> dict[int, int]:
    """Read "TARGET=SOURCE" pairs. A token may contain "=": the split at which both sides exist is meant.

    Raises UsageError unknown-token.
    """
    mapped: dict[int, int] = {}
    for pair in pairs:
        cuts = [n for n, character in enumerate(pair) if character == "=" and 0 < n < len(pair) - 1]
        found = [
            (_token(target, pair[:n]), _token(source, pair[n + 1 :]))
            for n in cuts
            if _token(target, pair[:n]) is not None and _token(source, pair[n + 1 :]) is not None
        ]
        if not found:
            left, _, right = pair.partition("=")
            side, word, names = (
                ("source", right, source) if _token(target, left) is not None else ("target", left, target)
            )
            raise UsageError(
                "unknown-token",
                f"--map-token {pair!r}: the {side} tokenizer has no token {word!r}."
                + did_you_mean(word, [text for text in names.text if text.startswith(("<", "["))]),
                "write it as TARGET=SOURCE, each token as its tokenizer spells it",
            )
        mapped[found[0][0]] = found[0][1]  # type: ignore[index,assignment]
    return mapped


def bos_to_add(bos: str, source: Tokenizer, target: Tokenizer, alignment: Alignment, notes: list[str]) -> int | None:
    """Return the id that the result's tokenizer must begin texts with, None where it can stay as it is.

    bos: auto, keep or a token. notes: grows by what was decided. Raises UsageError bad-bos.
    """
    if bos not in ("auto", "keep"):
        named = _token(target.vocabulary, bos)
        if named is None:
            raise UsageError("bad-bos", f"bos is auto, keep or a token of the target tokenizer, not {bos!r}")
        if named in target.leading:
            return None
        notes.append(f"the tokenizer will begin every text with {target.vocabulary.text[named]}, as was asked")
        return named
    if not source.adds_bos or target.adds_bos:
        return None
    token = alignment.target_of(source.vocabulary.roles["bos"], target.vocabulary.roles.get("bos"))
    if token is None:
        notes.append(
            "the model expects every text to begin with bos, and the target tokenizer has no token for it: "
            f"name one with --map-token 'TARGET={source.vocabulary.text[source.vocabulary.roles['bos']]}'"
        )
        return None
    text = target.vocabulary.text[token]
    if bos == "keep":
        notes.append(f"the model expects every text to begin with bos ({text}), and the tokenizer will not add it")
        return None
    notes.append(f"the tokenizer will begin every text with {text}, as the model expects (--bos keep leaves it alone)")
    return token


def _token(vocabulary: Vocabulary, text: str) -> int | None:
    return vocabulary.id_of_text.get(text, vocabulary.id_of.get(text.encode()))


def matrix_edits(
    source: Checkpoint, alignment: Alignment, tie: bool | None, notes: list[str]
) -> tuple[MatrixEdit, ...]:
    """Return what becomes of each table. tie: True or False to join or split input and output. Raises UsageError cannot-tie, cannot-untie."""
    edits = [MatrixEdit(table, table.names, alignment.source_of) for table in source.matrices]
    if tie is False and source.tied:
        split = next(edit for edit in edits if edit.matrix.is_head)
        head = head_name(split.matrix)
        if head is None:
            raise UsageError(
                "cannot-untie",
                f"tokswap does not know how a separate head of this architecture is stored (beside {split.names[0]})",
                "leave out --untie",
            )
        kept = tuple(name for name in split.names if name != head)
        edits[edits.index(split) : edits.index(split) + 1] = untied(dataclasses.replace(split, names=kept), head)
    if tie is True and not source.tied:
        heads = [edit for edit in edits if edit.matrix.role == "output"]
        if not heads:
            raise UsageError("cannot-tie", "this model has no output head to tie to its embeddings", "leave out --tie")
        edits = [edit for edit in edits if edit.matrix.role != "output"]
        edits[0] = dataclasses.replace(edits[0], matrix=dataclasses.replace(edits[0].matrix, is_head=True))
        notes.append("the output head is thrown away (--tie): every logit of the model changes")
    return tuple(edits)


def set_tie(config: dict[str, Any], tie: bool | None) -> None:
    """Say in a config whether input and output tables are one."""
    if tie is None:
        return
    holders = [child for _, child in configs(config) if "tie_word_embeddings" in child] or [config]
    for child in holders:
        child["tie_word_embeddings"] = tie  # type: ignore[index]
