"""The options of an ensemble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tokswap.heal.options import HealStepOptions
from tokswap.options.declare import option
from tokswap.options.groups import ComputeOptions, MethodOptions, TrustOptions
from tokswap.transplant.options import TransplantOptions


@dataclass(frozen=True, kw_only=True)
class MemberOptions(MethodOptions, HealStepOptions, ComputeOptions, TrustOptions):
    """How the members whose vocabulary changes are made."""

    bos: str = option(
        "auto",
        "Make the tokenizer begin texts with bos where a member needs it (`auto`), or leave it as it is (`keep`).",
        choices=("auto", "keep"),
        code="bad-bos",
        recorded=False,
    )
    link: bool = option(False, "Hard-link weight files that do not change instead of copying them.")

    def of_member(self, out: Path, bos: str, *, changes: bool) -> TransplantOptions:
        """Return the options of the transplant that makes a member.

        A member that exists is looked at later, and not refused here for being there. A member whose vocabulary does
        not change copies every row.

        Args:
            out: Folder of the member.
            bos: How its tokenizer begins texts.
            changes: Whether its vocabulary changes.
        """
        own = {item.name: getattr(self, item.name) for item in fields(MemberOptions)}
        own |= {"out": out, "bos": bos, "force": True}
        if not changes:
            for name in ("donor", "settings", "output_init", "heal", "heal_train"):
                del own[name]
            own |= {"init": "mean", "keep_rows": True}
        return TransplantOptions(**own)


@dataclass(frozen=True, kw_only=True)
class EnsembleOptions(MemberOptions):
    """Everything that a user can set for an ensemble."""

    weights: str | Sequence[float] | None = option(
        None, "Weight of each member, in their order. [default: equal weights]", metavar="W,W"
    )
    choice: Mapping[str, Any] = option({}, "How the tokenizer was chosen; kept in ensemble.json.", flag="")
    force: bool = option(False, "Rebuild existing members that do not match this request.", recorded=False)

    @property
    def of_members(self) -> MemberOptions:
        """The options of the members alone."""
        return MemberOptions(**{item.name: getattr(self, item.name) for item in fields(MemberOptions)})
