"""Alignment of two vocabularies: for each target id the source id with the same meaning, and the reason. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from tokswap.tokenizer.vocabulary import Kind, Vocabulary

CHAT_PRESETS = (
    ("<|im_start|>", "<start_of_turn>", "<|start_header_id|>", "<|start|>", "<|start_of_role|>", "<|turn>"),
    ("<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<|end|>", "<|end_of_role|>", "<turn|>"),
    ("<|endoftext|>", "<|end_of_text|>", "<eos>", "</s>", "<|end▁of▁sentence|>", "[EOS]"),
    ("<|begin_of_text|>", "<|startoftext|>", "<bos>", "<s>", "<|begin▁of▁sentence|>", "[BOS]"),
)
"""Special tokens that model families use for the same purpose. The first one that exists is used."""


class Reason(IntEnum):
    """Where a target row is from, and why."""

    MISSING = 0
    """No source token has these bytes: a method computes the row."""
    BYTES = 1
    """Copied from the source token with the same canonical bytes."""
    ROLE = 2
    """Copied from the source's special token with the same role."""
    TEXT = 3
    """Copied from the source's special token with the same name."""
    PRESET = 4
    """Copied from the source's chat marker with the same purpose and another name."""
    MAP = 5
    """Copied from the source token that the user named."""
    NEUTRAL = 6
    """A special or reserved token that the source lacks: a neutral row, which is never predicted."""
    PADDING = 7
    """A padding row, past the tokenizer's last id: a neutral row, which is never predicted."""
    OBSERVED = 8
    """Kept by a trim: the corpora use the token."""
    FORCED = 9
    """Kept by a trim: a special token, a byte, or a token that the user named."""
    MERGE_DEPENDENCY = 10
    """Kept by a trim: other kept tokens are merged from it."""
    UNREACHABLE = 11
    """A text token that the target tokenizer never produces: a neutral row, which is never predicted."""

    @property
    def key(self) -> str:
        """The name in reports, which programs read."""
        return "scaffold" if self is Reason.MERGE_DEPENDENCY else self.name.lower()


NEUTRAL_REASONS = (Reason.NEUTRAL, Reason.PADDING, Reason.UNREACHABLE)
"""The reasons of rows that are neutral."""


@dataclass(frozen=True)
class Alignment:
    """Where the rows of a target vocabulary come from.

    Attributes:
        source_of: The source id of each target row, or -1 (int32 [V_target]).
        reason: The `Reason` of each target row (uint8 [V_target]).
    """

    source_of: np.ndarray
    reason: np.ndarray

    def __post_init__(self) -> None:
        if self.source_of.shape != self.reason.shape or self.source_of.dtype != np.int32:
            raise ValueError("source_of must be int32 [V_target], and reason must have the same shape")
        without_source = np.isin(self.reason, (Reason.MISSING, *NEUTRAL_REASONS))
        if np.any((self.source_of < 0) != without_source):
            raise ValueError("a row must have a source id exactly if its reason names one")

    def __len__(self) -> int:
        return len(self.source_of)

    @property
    def shared(self) -> np.ndarray:
        """The target ids whose rows are copied, ascending (int64 [n])."""
        return np.flatnonzero(self.source_of >= 0)

    @property
    def missing(self) -> np.ndarray:
        """The target ids whose rows a method computes, ascending (int64 [n])."""
        return np.flatnonzero(self.reason == Reason.MISSING)

    @property
    def neutral(self) -> np.ndarray:
        """The target ids that must never be predicted, ascending (int64 [n])."""
        return np.flatnonzero(np.isin(self.reason, NEUTRAL_REASONS))

    def without_shared_text(self) -> Alignment:
        """Return an alignment in which all text pieces are missing, for a method that computes all of their rows."""
        text = self.reason == Reason.BYTES
        return Alignment(
            np.where(text, np.int32(-1), self.source_of), np.where(text, np.uint8(Reason.MISSING), self.reason)
        )

    def counts(self) -> dict[str, int]:
        """Return `Reason.key` -> number of rows, for the reasons that occur."""
        count = np.bincount(self.reason, minlength=len(Reason))
        return {reason.key: int(count[reason]) for reason in Reason if count[reason]}

    def by_group(self, target: Vocabulary) -> dict[str, dict[str, int]]:
        """Count the rows of each group of tokens.

        Args:
            target: The target vocabulary.

        Returns:
            Group (see `Vocabulary.groups`) or "padding" -> `Reason.key` -> number of rows. The largest group is first.
        """
        found: dict[str, Counter[str]] = {}
        groups = [*target.groups(), *["padding"] * (len(self) - len(target))]
        for group, reason in zip(groups, self.reason.tolist(), strict=True):
            found.setdefault(group, Counter())[Reason(reason).key] += 1
        order = sorted(found, key=lambda group: (-found[group].total(), group))
        return {group: dict(found[group].most_common()) for group in order}

    def target_of(self, source: int, preferred: int | None = None) -> int | None:
        """Return a target id that is copied from a source id: `preferred` if it is one, else the first, else None."""
        ids = np.flatnonzero(self.source_of == source)
        if preferred is not None and preferred in ids:
            return preferred
        return int(ids[0]) if len(ids) else None


def align(
    target: Vocabulary,
    source: Vocabulary,
    *,
    rows: int | None = None,
    mapped: Mapping[int, int] | None = None,
    bos_first: bool = True,
) -> Alignment:
    """Find the source token of each target token.

    Text pieces match by token bytes, and only ids that text is tokenized into: if the source has several ids with the
    same bytes, the one that its tokenizer produces matches. An id that the target tokenizer never produces matches
    none, so that it is never predicted in place of the id that it produces. A WordPiece token that stands for a
    character with and without a space before it matches the one without first. Special tokens match by role, then by
    name, then by chat preset.

    Args:
        target: The target vocabulary.
        source: The source vocabulary.
        rows: Rows of the result, at least `len(target)`. Rows past the last token are padding rows.
        mapped: Target id -> source id, as the user asks. It overrides everything.
        bos_first: Whether a target token that is both bos and eos follows the source's bos. This is right for a source
            model that begins its texts with bos.
    """
    rows = len(target) if rows is None else rows
    source_of = np.full(rows, -1, np.int32)
    reason = np.full(rows, Reason.PADDING, np.uint8)
    unreachable = target.unreachable.tolist()
    for token, kind in enumerate(target.kind.tolist()):
        if unreachable[token]:
            found, why = None, Reason.UNREACHABLE
        elif kind in (Kind.NORMAL, Kind.BYTE):
            found = _produced(source, target, token)
            why = Reason.BYTES if found is not None else Reason.MISSING
        else:
            found, why = _match_special(target, source, token, bos_first)
        source_of[token] = -1 if found is None else found
        reason[token] = why
    for token, found in (mapped or {}).items():
        source_of[token], reason[token] = found, Reason.MAP
    return Alignment(source_of, reason)


def identity(target: Vocabulary, source: Vocabulary, rows: int) -> Alignment:
    """Copy every row to the same id; ignore token roles.

    Args:
        target: The target vocabulary.
        source: The source vocabulary, which must have the same tokens.
        rows: Rows of the result, at least `len(target)`.
    """
    if list(target.text) != list(source.text):
        raise ValueError("the two vocabularies must have the same token at every id")
    source_of = np.full(rows, -1, np.int32)
    reason = np.full(rows, Reason.PADDING, np.uint8)
    source_of[: len(target)] = np.arange(len(target))
    reason[: len(target)] = Reason.BYTES
    return Alignment(source_of, reason)


def _produced(source: Vocabulary, target: Vocabulary, token: int) -> int | None:
    """Return the source id that text of a target token is tokenized into, None without one."""
    found = source.produced.get(target.token_bytes[token])
    if token in target.apart:
        return source.produced.get(target.token_bytes[token].removeprefix(b" "), found)
    return found


def _match_special(target: Vocabulary, source: Vocabulary, token: int, bos_first: bool) -> tuple[int | None, Reason]:
    """Match a special or reserved token. Pad and unk come last: the name of a token says more than these roles."""
    roles = target.roles_of(token)
    first = ("bos", "eos", "sep", "cls", "mask") if bos_first else ("eos", "bos", "sep", "cls", "mask")
    for role in first:
        if role in roles and role in source.roles:
            return source.roles[role], Reason.ROLE
    text = target.text[token]
    if text and text in source.id_of_text:
        return source.id_of_text[text], Reason.TEXT
    for names in CHAT_PRESETS:
        if text in names:
            for name in names:
                if name in source.id_of_text:
                    return source.id_of_text[name], Reason.PRESET
    for role in ("pad", "unk"):
        if role in roles and role in source.roles:
            return source.roles[role], Reason.ROLE
    return None, Reason.NEUTRAL
