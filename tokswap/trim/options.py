"""The options of a trim: which tokens to keep, which rows the result has, and how it is checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from tokswap.errors import UsageError
from tokswap.heal.options import HealStepOptions
from tokswap.options.declare import Options, option
from tokswap.options.groups import (
    BackendOptions,
    DeviceOptions,
    FieldOptions,
    GgufOptions,
    PaddingOptions,
    TrustOptions,
    WriteOptions,
)


@dataclass(frozen=True, kw_only=True)
class TrimChoice(FieldOptions):
    """Which tokens to keep."""

    corpora: Sequence[str | Path] = option(
        (),
        "Keep the tokens that this text uses (at least N times); repeat for more.",
        flag="--corpus",
        metavar="FILE[=N]",
        complete="files",
    )
    languages: Sequence[str] = option(
        (), "Keep the tokens of these languages, by word lists: de,en.", flag="--lang", metavar="CODES", kind="codes"
    )
    words: Sequence[str | Path] = option(
        (), "Keep the tokens of these words, one a line; repeat for more.", metavar="FILE", complete="files"
    )
    scripts: Sequence[str] = option(
        (), "Keep the tokens of a script, such as Latin; repeat for more.", flag="--keep-script", metavar="NAME"
    )
    keep_tokens: Sequence[str] = option((), "Keep this token; repeat for more.", flag="--keep-token", metavar="T")
    drop_tokens: Sequence[str] = option(
        (),
        "Drop this added token, or all that match, such as '<unused*>'; repeat for more.",
        flag="--drop-token",
        metavar="T",
    )
    target_size: int | None = option(
        None,
        "Largest number of rows of the result, merge dependencies and padding included.",
        metavar="N",
        least=1,
        code="bad-target-size",
    )
    min_count: int = option(
        1,
        "Keep tokens that occur at least this often in a corpus.",
        metavar="N",
        least=1,
        code="bad-minimum",
        needs="corpora",
    )
    coverage: float | None = option(
        None,
        "Keep the most frequent tokens that make up this share of each corpus.",
        metavar="SHARE",
        least=0,
        most=1,
        code="bad-coverage",
        needs="corpora or languages or words",
    )

    def check_choice(self) -> None:
        """Check that the options say which tokens to keep.

        Raises:
            UsageError: nothing-to-keep, bad-coverage.
        """
        if not (self.corpora or self.languages or self.words or self.scripts or self.keep_tokens):
            hint = "name a text (--corpus, or --trim-corpus in a transplant), a language, words, a script or a token"
            raise UsageError("nothing-to-keep", "no option says which tokens to keep", hint)
        if self.coverage == 0:
            raise UsageError("bad-coverage", "--coverage must be above 0")


@dataclass(frozen=True, kw_only=True)
class TrimRowOptions(PaddingOptions):
    """Which rows the result has besides those that were chosen."""

    like: str | Path | None = option(
        None,
        "Keep exactly the tokens of this trimmed model; --model may be an adapter.",
        metavar="DIR",
        complete="models",
    )


@dataclass(frozen=True, kw_only=True)
class TrimCheckOptions(Options):
    """How the result is checked."""

    held_out: Sequence[str | Path] = option(
        (), "Text to measure the result on; repeat for more.", metavar="FILE", complete="files"
    )
    check: str = option(
        "auto",
        "Compare the outputs of both models after writing: `auto` if memory allows it, `full` always, `tokens` never.",
        choices=("auto", "full", "tokens"),
        code="bad-check",
    )


@dataclass(frozen=True, kw_only=True)
class TrimOptions(
    TrimChoice,
    TrimRowOptions,
    TrimCheckOptions,
    HealStepOptions,
    WriteOptions,
    GgufOptions,
    BackendOptions,
    DeviceOptions,
    TrustOptions,
):
    """Everything that a user can set for a trim."""

    @property
    def choice(self) -> TrimChoice:
        """The options that choose tokens, without the others."""
        return TrimChoice(**{item.name: getattr(self, item.name) for item in fields(TrimChoice)})

    def check_choice(self) -> None:
        """Check that either `like` or the other options say which tokens to keep.

        Raises:
            UsageError: nothing-to-keep, bad-coverage, bad-like.
        """
        if self.like is None:
            super().check_choice()
        elif self.choice != TrimChoice(field=self.field):
            hint = "leave out the other options that choose tokens"
            raise UsageError("bad-like", "--like keeps exactly the tokens of another model", hint)
