"""The options of a draft and of a reduced draft head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from tokswap.heal.options import HealStepOptions
from tokswap.options.declare import option
from tokswap.options.groups import ComputeOptions, GgufOptions, MethodOptions, TrustOptions, WriteOptions
from tokswap.transplant.options import TokenMapOptions, TransplantOptions


@dataclass(frozen=True, kw_only=True)
class DraftOptions(
    MethodOptions, HealStepOptions, TokenMapOptions, ComputeOptions, WriteOptions, GgufOptions, TrustOptions
):
    """Everything that a user can set for a draft: a transplant's options but those that decide the vocabulary."""

    def as_transplant(self, rows: int) -> TransplantOptions:
        """Return the options of the transplant that makes the draft. rows: of the target's vocabulary matrices."""
        own = {item.name: getattr(self, item.name) for item in fields(DraftOptions)}
        return TransplantOptions(**own, vocab_size=rows, bos="keep")


@dataclass(frozen=True, kw_only=True)
class DraftHeadOptions(TrustOptions):
    """Everything that a user can set for a reduced draft head."""

    size: int = option(
        32768, "How many tokens the head has.", metavar="N", least=1, code="bad-head-size", recorded=False
    )
    corpora: Sequence[str] = option(
        (),
        "Take the tokens that this text uses most, best text that the target has written; repeat for more.",
        flag="--corpus",
        metavar="FILE",
        complete="files",
    )
    held_out: Sequence[str] = option(
        (), "Text to tell the coverage of; repeat for more.", metavar="FILE", complete="files"
    )
    field: str = option("text", "Name of the text field in JSON lines and parquet files.", metavar="NAME")
    out: str | Path | None = option(
        None, "Output folder. [default: named after the model]", metavar="DIR", recorded=False
    )
    force: bool = option(False, "Replace an existing folder of a head.", recorded=False)
