"""What the options of a transplant mean for two vocabularies: rows, token pairs, bos, and matrices."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tokswap.checkpoint.edit import MatrixEdit, untied
from tokswap.checkpoint.matrices import head_name, role_by_name
from tokswap.checkpoint.nested_configs import text_config
from tokswap.checkpoint.reader import Checkpoint
from tokswap.checkpoint.skeleton import input_name
from tokswap.errors import UsageError, did_you_mean
from tokswap.options.groups import MOST_IDS
from tokswap.tokenizer.alignment import Alignment
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Vocabulary

HEAD_DROPPED = "--tie discards lm_head: every logit of the model changes"


def matrix_rows(vocab_size: str | int, multiple: int | None, tokens: int, target_config: Mapping[str, Any]) -> int:
    """Return the number of rows of the result's vocabulary matrices.

    Args:
        vocab_size: "match" (as many as the tokenizer's own model has), "tight" (one per token) or a number.
        multiple: Round up to a multiple of it.
        tokens: Number of ids of the target tokenizer.
        target_config: Config of the tokenizer's own model, {} if unknown.

    Raises:
        UsageError: bad-vocab-size.
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
            message = f"--vocab-size must be match, tight or a number, not {vocab_size!r}"
            raise UsageError("bad-vocab-size", message) from error
        if rows < tokens:
            raise UsageError("bad-vocab-size", f"{rows:,} rows are too few: the tokenizer has {tokens:,} ids")
    rows = -(-rows // (multiple or 1)) * (multiple or 1)
    if rows > MOST_IDS:
        raise UsageError("bad-vocab-size", f"{rows:,} rows are more than any vocabulary has")
    return rows


def read_token_map(pairs: Sequence[str], target: Vocabulary, source: Vocabulary) -> dict[int, int]:
    """Read "TARGET=SOURCE" pairs as target id -> source id.

    A token may contain "=": the pair is split where both sides are tokens.

    Raises:
        UsageError: unknown-token.
    """
    mapped: dict[int, int] = {}
    for pair in pairs:
        places = [n for n, character in enumerate(pair) if character == "=" and 0 < n < len(pair) - 1]
        sides = [(target.find(pair[:n]), source.find(pair[n + 1 :])) for n in places]
        found = [(left, right) for left, right in sides if left is not None and right is not None]
        if not found:
            raise _unknown(pair, target, source)
        mapped[found[0][0]] = found[0][1]
    return mapped


def _unknown(pair: str, target: Vocabulary, source: Vocabulary) -> UsageError:
    left, _, right = pair.partition("=")
    side, word, names = ("source", right, source) if target.find(left) is not None else ("target", left, target)
    near = did_you_mean(word, [text for text in names.text if text.startswith(("<", "["))])
    return UsageError(
        "unknown-token",
        f"--map-token {pair!r}: the {side} tokenizer has no token {word!r}{near}",
        "write it as TARGET=SOURCE, each token as its tokenizer spells it",
    )


def bos_to_add(
    bos: str, source: Tokenizer, target: Tokenizer, alignment: Alignment
) -> tuple[int | None, tuple[str, ...]]:
    """Decide how the result's tokenizer begins texts.

    Args:
        bos: "auto", "keep" or a token of the target.
        source: The source tokenizer.
        target: The target tokenizer.
        alignment: Where each target row comes from.

    Returns:
        The id that the tokenizer must put first, None where it stays as it is; and notes.

    Raises:
        UsageError: bad-bos.
    """
    if bos not in ("auto", "keep"):
        named = target.vocabulary.find(bos)
        if named is None:
            raise UsageError("bad-bos", f"--bos must be auto, keep or a token of the target tokenizer, not {bos!r}")
        if named in target.leading:
            return None, ()
        return named, (f"the tokenizer will begin every text with {target.vocabulary.text[named]}, as requested",)
    if not source.adds_bos or target.adds_bos:
        return None, ()
    token = alignment.target_of(source.vocabulary.roles["bos"], target.vocabulary.roles.get("bos"))
    expects = "the model expects every text to begin with bos"
    if token is None:
        name = source.vocabulary.text[source.vocabulary.roles["bos"]]
        return None, (
            f"{expects}, and the target tokenizer has no token for it: name one with --map-token 'TARGET={name}'",
        )
    text = target.vocabulary.text[token]
    if bos == "keep":
        return None, (f"{expects} ({text}), and the tokenizer will not add it",)
    return token, (
        f"the tokenizer will begin every text with {text}, as the model expects (use --bos keep to prevent it)",
    )


def matrix_edits(source: Checkpoint, alignment: Alignment, tie: bool | None) -> tuple[MatrixEdit, ...]:
    """Return what becomes of each vocabulary matrix.

    Args:
        source: The source model.
        alignment: Where each row comes from.
        tie: True to tie lm_head to the input embeddings, False to give it a matrix of its own, None to leave it.

    Raises:
        UsageError: cannot-tie, cannot-untie.
    """
    edits = [MatrixEdit(matrix, matrix.names, alignment.source_of) for matrix in source.matrices]
    if tie is False and source.tied:
        split = next(edit for edit in edits if edit.matrix.is_head)
        alone = len(split.names) == 1 and role_by_name(split.name) == "output"  # the one matrix is stored as lm_head
        inputs, head = (input_name(source), split.name) if alone else (split.name, head_name(split.matrix))
        if inputs is None or head is None:
            raise UsageError(
                "cannot-untie",
                f"the name of a separate lm_head is unknown for this architecture (beside {split.name})",
                "leave out --untie, or the --propose copied of a draft, which unties",
            )
        kept = (inputs,) if alone else tuple(name for name in split.names if name != head)
        edits[edits.index(split) : edits.index(split) + 1] = untied(dataclasses.replace(split, names=kept), head)
    elif tie is not None and not source.tied:
        without = [edit for edit in edits if edit.matrix.role != "output" or edit.matrix.further]
        if len(without) == len(edits):
            if tie:
                raise UsageError("cannot-tie", "this model has no lm_head to tie to its embeddings", "leave out --tie")
            raise UsageError("cannot-untie", "this model has no lm_head", "leave out --untie")
        if tie:
            edits = without
            edits[0] = dataclasses.replace(edits[0], matrix=dataclasses.replace(edits[0].matrix, is_head=True))
    return tuple(edits)
