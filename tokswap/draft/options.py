"""The options of a draft and of a reduced draft head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from tokswap.heal.options import SelfTextOptions
from tokswap.options.declare import Options, option
from tokswap.options.groups import (
    ComputeOptions,
    FieldOptions,
    GgufOptions,
    MethodOptions,
    TrustOptions,
    WriteOptions,
)
from tokswap.transplant.options import TokenMapOptions, TransplantOptions


@dataclass(frozen=True, kw_only=True)
class DistillOptions(SelfTextOptions, FieldOptions):
    """What a draft learns from its target."""

    distill: Sequence[str | Path] = option(
        (),
        "Train the draft to predict what the target predicts on this text (100 kB is a good start); repeat for more.",
        metavar="TEXT",
        complete="files",
    )


@dataclass(frozen=True, kw_only=True)
class ProposalOptions(Options):
    """Which tokens a draft proposes."""

    propose: str = option(
        "all",
        "Which tokens the draft proposes: `all`, or only those whose rows are `copied`. Initialised tokens are then "
        "read and never proposed; lm_head becomes a matrix of its own.",
        choices=("all", "copied"),
        code="bad-propose",
    )


@dataclass(frozen=True, kw_only=True)
class DraftOptions(
    MethodOptions,
    ProposalOptions,
    DistillOptions,
    TokenMapOptions,
    ComputeOptions,
    WriteOptions,
    GgufOptions,
    TrustOptions,
):
    """Everything that a user can set for a draft: a transplant's options but those that decide the vocabulary."""

    @property
    def distills(self) -> bool:
        """Whether the draft is trained."""
        return bool(self.distill or self.self_text)

    def as_transplant(self, rows: int) -> TransplantOptions:
        """Return the options of the transplant that makes the draft. rows: of the target's vocabulary matrices."""
        names = {item.name for item in fields(DraftOptions)} & {item.name for item in fields(TransplantOptions)}
        shared = {name: getattr(self, name) for name in names}
        return TransplantOptions(**shared, vocab_size=rows, bos="keep")


@dataclass(frozen=True, kw_only=True)
class DraftHeadOptions(FieldOptions, TrustOptions):
    """Everything that a user can set for a reduced draft head."""

    size: int = option(
        32768, "How many tokens the head has.", metavar="N", least=1, code="bad-head-size", recorded=False
    )
    corpora: Sequence[str | Path] = option(
        (),
        "Take the tokens that this text uses most, best text that the target has written; repeat for more.",
        flag="--corpus",
        metavar="FILE",
        complete="files",
    )
    held_out: Sequence[str | Path] = option(
        (), "Text to tell the coverage of; repeat for more.", metavar="FILE", complete="files"
    )
    out: str | Path | None = option(
        None, "Output folder. [default: named after the model]", metavar="DIR", recorded=False
    )
    force: bool = option(False, "Replace an existing folder of a head.", recorded=False)
