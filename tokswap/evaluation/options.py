"""What a user can set when models are evaluated on texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tokswap.options.declare import Options, option, seed_option
from tokswap.options.groups import DeviceOptions, TrustOptions
from tokswap.tokenizer.probes import PROMPTS

if TYPE_CHECKING:
    from tokswap.checkpoint.loaded import ModelLike

DTYPES = ("float32", "bfloat16", "float16")
"""Types that models can compute in."""


@dataclass(frozen=True, kw_only=True)
class RunOptions(DeviceOptions):
    """How models compute."""

    dtype: str = option("float32", "Type that models compute in.", choices=DTYPES)


@dataclass(frozen=True, kw_only=True)
class ReadingOptions(Options):
    """How models read texts and continue prompts."""

    window: int = option(512, "Tokens that a model reads at once.", least=1, metavar="N", code="bad-window")
    overlap: int = option(128, "Tokens of context that windows share.", least=0, metavar="N", code="bad-window")
    prompts: Sequence[str] = option(
        PROMPTS, "Prompt that the models continue; repeat for more. [default: five]", flag="--prompt", recorded=False
    )
    tokens: int = option(24, "Tokens of each continuation; 0 for none.", least=0, metavar="N")
    seed: int = seed_option("Seed of the draws behind the intervals.")


@dataclass(frozen=True, kw_only=True)
class ProbeOptions(Options):
    """What models are asked besides."""

    probes: Sequence[str] = option(
        (),
        "Ask questions too: spelling, arithmetic (additions and counting), facts (four choices) or chat (does each "
        "reply end); repeat for more.",
        flag="--probe",
        metavar="NAME",
        code="unknown-probe",
    )
    questions: int = option(20, "Questions of each part of a probe.", least=1, metavar="N", needs="probes")
    harness: Sequence[str] = option(
        (), "Run this task of lm-evaluation-harness too; repeat for more.", metavar="TASK", code="unknown-task"
    )
    harness_path: str | Path | None = option(
        None,
        "Folder with the YAML files of the tasks, which may run Python code. [default: the tasks of lm_eval]",
        metavar="DIR",
        needs="harness",
    )
    harness_limit: int | None = option(None, "Most questions of each task.", least=1, metavar="N", needs="harness")


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(RunOptions, ReadingOptions, ProbeOptions, TrustOptions):
    """How models are evaluated."""

    against: ModelLike | None = option(
        None,
        "Source model. The excess is the loss above its loss.",
        metavar="SOURCE",
        complete="models",
        recorded=False,
    )
