"""The options of an extension: which tokens are new, and what becomes of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from tokswap.errors import UsageError
from tokswap.heal.options import HealStepOptions
from tokswap.options.declare import Options, option
from tokswap.options.groups import (
    MOST_IDS,
    ComputeOptions,
    FieldOptions,
    GgufOptions,
    InitOptions,
    PaddingOptions,
    TrustOptions,
    WriteOptions,
)
from tokswap.transplant.options import TransplantOptions


@dataclass(frozen=True, kw_only=True)
class TermOptions(Options):
    """Which terms become tokens."""

    tokens: Sequence[str | Path] = option(
        (),
        "Add the terms of this list, one a line; a space before a term is part of it. Repeat for more.",
        metavar="FILE",
        complete="files",
    )
    forms: str = option(
        "auto",
        "Form of a term without a space before it: after a space (`word`), as it stands (`bare`), `both`, or by its "
        "script (`auto`).",
        choices=("auto", "word", "bare", "both"),
        needs="tokens",
    )
    map_tokens: Sequence[str] = option(
        (),
        "Give a new token the row of this old one, or what the method makes of several; repeat for more.",
        flag="--map-token",
        metavar="NEW=OLD[+OLD...]",
    )


@dataclass(frozen=True, kw_only=True)
class CorpusOptions(FieldOptions):
    """How many tokens a corpus adds, and how."""

    corpora: Sequence[str | Path] = option(
        (),
        "Text to choose tokens by, and to measure what they save; repeat for more.",
        flag="--corpus",
        metavar="FILE",
        complete="files",
    )
    add: int | None = option(
        None,
        "Number of tokens to add that save most on the corpus.",
        metavar="N",
        least=1,
        most=MOST_IDS,
        code="bad-add",
    )
    replace: bool = option(
        False, "Drop as many old tokens that the corpus uses least, so that the vocabulary keeps its size."
    )


@dataclass(frozen=True, kw_only=True)
class RowOptions(PaddingOptions):
    """Which rows the result has, and how large the new ones are."""

    input_norms: str = option(
        "median",
        "Norm of new input embeddings that are not lm_head too: the `median` of old rows, or what the `method` gives.",
        choices=("median", "method"),
    )
    like: str | Path | None = option(
        None,
        "Let an adapter follow this extended model: --model is an adapter of the model that was extended.",
        metavar="DIR",
        complete="models",
        recorded=False,
    )


@dataclass(frozen=True, kw_only=True)
class ExtendOptions(
    TermOptions,
    CorpusOptions,
    InitOptions,
    HealStepOptions,
    RowOptions,
    ComputeOptions,
    WriteOptions,
    GgufOptions,
    TrustOptions,
):
    """Everything that a user can set for an extension."""

    def check_choice(self) -> None:
        """Check that the options say what to add.

        Raises:
            UsageError: nothing-to-add, not-an-adapter.
        """
        if self.like is not None:
            message = "--like lets an adapter follow an extended model, and this is a model"
            raise UsageError("not-an-adapter", message, "leave out --like, or name the adapter as --model")
        hint = "name a list of --tokens, or a --corpus and how many tokens to --add"
        if not self.tokens and not (self.corpora and self.add):
            raise UsageError("nothing-to-add", "no option says which tokens to add", hint)
        if self.add and not self.corpora:
            raise UsageError("nothing-to-add", "--add chooses tokens by a text, and there is none", hint)
        if self.replace and not self.corpora:
            message = "--replace drops the tokens that a text uses least, and there is none"
            raise UsageError("nothing-to-add", message, "name a --corpus")

    def as_transplant(self) -> TransplantOptions:
        """Return the options of the transplant of the extended tokenizer."""
        shared = {item.name for item in fields(TransplantOptions)} - {"map_tokens"}
        own = {item.name: getattr(self, item.name) for item in fields(ExtendOptions) if item.name in shared}
        return TransplantOptions(**own)
