"""The options of a transplant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokswap.heal.options import HealStepOptions
from tokswap.options.declare import Options, option
from tokswap.options.groups import (
    ComputeOptions,
    GgufOptions,
    MethodOptions,
    PaddingOptions,
    TrustOptions,
    WriteOptions,
)
from tokswap.tokenizer.digit_splits import DIGIT_SPLITS


@dataclass(frozen=True, kw_only=True)
class TokenMapOptions(Options):
    """Which tokens match besides those that match by themselves, and which matrices are written."""

    map_tokens: Sequence[str] = option(
        (),
        "Copy this source token's row for that target token, when automatic matching is not enough; repeat for more.",
        flag="--map-token",
        metavar="TARGET=SOURCE",
    )
    tie: bool | None = option(
        None,
        "Tie lm_head to the input embeddings, or give it a matrix of its own. [default: as the source has it]",
        flag="--tie/--untie",
        kind="switch",
    )


@dataclass(frozen=True, kw_only=True)
class VocabularyOptions(TokenMapOptions, PaddingOptions):
    """How large the new vocabulary matrices are, and how texts begin."""

    vocab_size: str | int = option(
        "match",
        "Rows of the vocabulary matrices: as many as the tokenizer's own model has, one per token, or a number.",
        metavar="match|tight|N",
        code="bad-vocab-size",
    )
    bos: str = option(
        "auto",
        "Make the tokenizer begin texts with bos where the source model needs it (`auto`), leave it as it is (`keep`), "
        "or name the token that begins every text.",
        metavar="auto|keep|TOKEN",
        complete="bos",
        code="bad-bos",
    )
    keep_rows: bool = option(
        False, "Copy every row to the same id; ignore token roles and names.", flag="", recorded=False
    )


@dataclass(frozen=True, kw_only=True)
class DigitOptions(Options):
    """How the result's tokenizer splits numbers."""

    digits: str | None = option(
        None,
        "Make the tokenizer split numbers into single digits (`single`), or threes from the left (`groups`) or from "
        "the right (`right-to-left`); ids and other texts stay. [default: as the target does]",
        choices=tuple(DIGIT_SPLITS),
        metavar="HOW",
        code="bad-digits",
    )


@dataclass(frozen=True, kw_only=True)
class TargetTrimOptions(Options):
    """Whether the target vocabulary is trimmed first."""

    trim_corpora: Sequence[str | Path] = option(
        (),
        "Trim the target vocabulary first, to the tokens that this text uses; repeat for more. See `tokswap trim`.",
        flag="--trim-corpus",
        metavar="FILE[=N]",
        complete="files",
    )
    trim_languages: Sequence[str] = option(
        (),
        "Trim the target vocabulary first, to these languages: de,en.",
        flag="--trim-lang",
        kind="codes",
        metavar="CODES",
    )
    trim_size: int | None = option(
        None, "Largest number of rows that such a trim leaves.", metavar="N", least=1, code="bad-target-size"
    )

    @property
    def trims(self) -> bool:
        """Whether the target vocabulary is trimmed."""
        return bool(self.trim_corpora or self.trim_languages or self.trim_size is not None)


@dataclass(frozen=True, kw_only=True)
class TransplantOptions(
    MethodOptions,
    HealStepOptions,
    VocabularyOptions,
    DigitOptions,
    TargetTrimOptions,
    ComputeOptions,
    WriteOptions,
    GgufOptions,
    TrustOptions,
):
    """Everything that a user can set for a transplant."""
