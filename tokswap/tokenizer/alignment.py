"""Alignment of two vocabularies: for each target id the source id with the same meaning, and why. Pure."""

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
"""Control tokens that model families use for the same purpose; the first of a row that exists is taken."""


class Reason(IntEnum):
    """Why a target row is what it is."""

    MISSING = 0
    """No source token has these bytes: an initialiser makes the row."""
    BYTES = 1
    """The source token with the same canonical bytes."""
    ROLE = 2
    """The source's special token with the same role."""
    TEXT = 3
    """The source's control token of the same name."""
    PRESET = 4
    """A chat marker that other families name otherwise."""
    MAP = 5
    """Named by the user."""
    NEUTRAL = 6
    """A control or reserved token that the source lacks: a row that is never predicted."""
    PADDING = 7
    """A row past the tokenizer's last id: a row that is never predicted."""
    OBSERVED = 8
    """Kept by a trim: the text that was counted uses it."""
    FORCED = 9
    """Kept by a trim: a control token, a byte, or named by the user."""
    SCAFFOLD = 10
    """Kept by a trim: other kept tokens are made from it."""


@dataclass(frozen=True)
class Alignment:
    """Where the rows of a target vocabulary come from.

    source_of: int32[V_target], the source id, -1 where there is none. reason: uint8[V_target], see `Reason`.
    """

    source_of: np.ndarray
    reason: np.ndarray

    def __post_init__(self) -> None:
        if self.source_of.shape != self.reason.shape or self.source_of.dtype != np.int32:
            raise ValueError("source_of is int32[V_target] and reason has its shape")
        made = np.isin(self.reason, (Reason.MISSING, Reason.NEUTRAL, Reason.PADDING))
        if np.any((self.source_of < 0) != made):
            raise ValueError("a row has a source id exactly when its reason names one")

    def __len__(self) -> int:
        return len(self.source_of)

    @property
    def shared(self) -> np.ndarray:
        """The target ids whose rows are copied, int64, ascending."""
        return np.flatnonzero(self.source_of >= 0)

    @property
    def missing(self) -> np.ndarray:
        """The target ids whose rows an initialiser makes, int64, ascending."""
        return np.flatnonzero(self.reason == Reason.MISSING)

    @property
    def neutral(self) -> np.ndarray:
        """The target ids that must never be predicted, int64, ascending."""
        return np.flatnonzero((self.reason == Reason.NEUTRAL) | (self.reason == Reason.PADDING))

    def without_shared_text(self) -> Alignment:
        """Return this with the rows of shared text pieces missing, for a method that makes all of them."""
        text = self.reason == Reason.BYTES
        return Alignment(
            np.where(text, np.int32(-1), self.source_of), np.where(text, np.uint8(Reason.MISSING), self.reason)
        )

    def counts(self) -> dict[str, int]:
        """Reason name (lower case) -> number of rows, for the reasons that occur."""
        count = np.bincount(self.reason, minlength=len(Reason))
        return {reason.name.lower(): int(count[reason]) for reason in Reason if count[reason]}

    def by_group(self, target: Vocabulary) -> dict[str, dict[str, int]]:
        """Group of the target's tokens (see `Vocabulary.groups`), or "padding" -> reason -> rows; the largest group first."""
        found: dict[str, Counter[str]] = {}
        groups = [*target.groups(), *["padding"] * (len(self) - len(target))]
        for group, reason in zip(groups, self.reason.tolist(), strict=True):
            found.setdefault(group, Counter())[Reason(reason).name.lower()] += 1
        order = sorted(found, key=lambda group: (-found[group].total(), group))
        return {group: dict(found[group].most_common()) for group in order}

    def target_of(self, source: int, preferred: int | None = None) -> int | None:
        """Return a target id for one source id: `preferred` if that is one, else the first, else None."""
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

    rows: table rows of the result, at least len(target); the rest is padding. mapped: target id -> source id, as the
    user asked; it overrides everything. bos_first: where one target token is both bos and eos, follow the source's
    bos; right for a source that begins its texts with bos.

    Text pieces match by canonical bytes; where the source has a normal piece and a byte-fallback piece of the same
    bytes the normal one is taken. Special tokens match by role, then by name, then by chat preset.
    """
    rows = len(target) if rows is None else rows
    source_of = np.full(rows, -1, np.int32)
    reason = np.full(rows, Reason.PADDING, np.uint8)
    for token, kind in enumerate(target.kind.tolist()):
        if kind == Kind.NORMAL:
            found = source.id_of.get(target.token_bytes[token])
            why = Reason.BYTES if found is not None else Reason.MISSING
        elif kind == Kind.BYTE:
            surface = target.token_bytes[token]
            found = source.byte_piece_of.get(surface, source.id_of.get(surface))
            why = Reason.BYTES if found is not None else Reason.MISSING
        else:
            found, why = _control(target, source, token, bos_first)
        source_of[token] = -1 if found is None else found
        reason[token] = why
    for token, found in (mapped or {}).items():
        source_of[token], reason[token] = found, Reason.MAP
    return Alignment(source_of, reason)


def identity(target: Vocabulary, source: Vocabulary, rows: int) -> Alignment:
    """Give every id its own row. For two tokenizers of one vocabulary, whose roles may differ."""
    if list(target.text) != list(source.text):
        raise ValueError("the two vocabularies are not the same id for id")
    source_of = np.full(rows, -1, np.int32)
    reason = np.full(rows, Reason.PADDING, np.uint8)
    source_of[: len(target)] = np.arange(len(target))
    reason[: len(target)] = Reason.BYTES
    return Alignment(source_of, reason)


def _control(target: Vocabulary, source: Vocabulary, token: int, bos_first: bool) -> tuple[int | None, Reason]:
    """Match a special or reserved token. Pad and unk come last: a name says more about a token than they do."""
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
