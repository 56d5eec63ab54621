"""What a user can set when one model writes text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokswap.evaluation.options import RunOptions
from tokswap.options.declare import Options, option
from tokswap.options.groups import TrustOptions, WritingOptions

ORDERS = ("psm", "spm")


@dataclass(frozen=True, kw_only=True)
class InfillOptions(Options):
    """How a gap is filled in (fill-in-the-middle, FIM)."""

    suffix: str | None = option(None, "Text after the gap that the model is to fill in.", metavar="TEXT")
    fim_markers: Sequence[str] = option(
        (),
        "Tokens before the prefix, the suffix and the middle. [default: those of a known family in the vocabulary]",
        kind="codes",
        metavar="PREFIX,SUFFIX,MIDDLE",
        needs="suffix",
    )
    fim_order: str = option(
        "psm",
        "What the model reads: prefix, suffix, middle (`psm`), or suffix, prefix, middle (`spm`), where the middle "
        "follows the prefix directly.",
        choices=ORDERS,
        needs="suffix",
    )


@dataclass(frozen=True, kw_only=True)
class GenerateOptions(WritingOptions, InfillOptions, RunOptions, TrustOptions):
    """How one model writes text."""

    exact_prompt: bool | None = option(
        None,
        "Let the prompt end inside a token: each token counts that spells its end and goes on. Or take it as it is "
        "tokenized. [default: exact if the tokenizer is BPE]",
        flag="--exact-prompt/--no-exact-prompt",
        kind="switch",
    )
