"""The options of a draft."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tokswap.options.groups import ComputeOptions, GgufOptions, MethodOptions, TrustOptions, WriteOptions
from tokswap.transplant.options import TokenMapOptions, TransplantOptions


@dataclass(frozen=True, kw_only=True)
class DraftOptions(MethodOptions, TokenMapOptions, ComputeOptions, WriteOptions, GgufOptions, TrustOptions):
    """Everything that a user can set for a draft: a transplant's options but those that decide the vocabulary."""

    def as_transplant(self, rows: int) -> TransplantOptions:
        """Return the options of the transplant that makes the draft. rows: of the target's vocabulary matrices."""
        own = {item.name: getattr(self, item.name) for item in fields(DraftOptions)}
        return TransplantOptions(**own, vocab_size=rows, bos="keep")
