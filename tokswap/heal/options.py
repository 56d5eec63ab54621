"""The options of healing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokswap.options.declare import Options, option, seed_option
from tokswap.options.groups import DeviceOptions, FieldOptions, TrustOptions, WriteOptions

TRAINS = ("adapter", "embeddings", "full", "new")
"""What can learn."""


@dataclass(frozen=True, kw_only=True)
class SelfTextOptions(Options):
    """Text that the teacher writes; the teacher of a draft is its target."""

    self_text: int | None = option(
        None,
        "Let the teacher, or the target of a draft, write this many bytes of text, and train on them too.",
        kind="size",
        metavar="SIZE",
        least=1,
    )
    self_text_languages: Sequence[str] = option(
        (),
        "With --self-text: write in these languages too, by word lists: de,en.",
        flag="--self-text-lang",
        metavar="CODES",
        kind="codes",
        needs="self_text",
    )


@dataclass(frozen=True, kw_only=True)
class HealTextOptions(SelfTextOptions, FieldOptions):
    """Which text a model is healed on."""

    teacher: str | Path | Any = option(
        None,
        "Model to learn from. [default: the source model that tokswap.json names]",
        metavar="MODEL",
        complete="models",
        recorded=False,
    )
    chats: Sequence[str | Path] = option(
        (),
        "Conversations to train on too: JSON lines with `messages`, rendered by the chat template; repeat for more.",
        flag="--chat",
        metavar="FILE",
        complete="files",
    )
    held_out: float = option(
        0.07, "Share of the text that is held out to judge the result, at least 3 passages.", least=0.01, most=0.5
    )


@dataclass(frozen=True, kw_only=True)
class HealLossOptions(Options):
    """What a model learns from."""

    kl: float = option(1.0, "Weight of the KL divergence from the teacher's predictions.", least=0)
    cross_entropy: float = option(0.2, "Weight of the cross-entropy on the text.", least=0)
    top: int = option(64, "Likeliest tokens of the teacher to read at each position.", least=1, metavar="K")


@dataclass(frozen=True, kw_only=True)
class HealTrainOptions(Options):
    """How a model is trained."""

    train: str = option(
        "adapter",
        "What learns besides embeddings and lm_head: a LoRA `adapter`, nothing (`embeddings`), or the `full` body; or "
        "`new`: only the rows that were initialised, and all else stays bit for bit.",
        choices=TRAINS,
    )
    epochs: int = option(2, "How often the text is read.", least=1)
    minutes: float | None = option(
        None,
        "Use only as much of the text as can be trained on in this time: most of it where the tokenizers differ most.",
        least=0.1,
        metavar="N",
    )
    rank: int = option(16, "Rank of the adapter.", least=1, needs="train=adapter")
    rate: float | None = option(
        None,
        "Learning rate of the adapter, or with `--train full` ten times that of the body. [default: 0.001 in models of "
        "width 640, less in wider ones]",
        least=0,
        needs="train=adapter or train=full",
    )
    embedding_rate: float = option(1e-3, "Learning rate of embeddings, relative to their typical element.", least=0)
    batch_tokens: int = option(512, "Tokens of a step. Small steps learn more from the same text.", least=16)

    def rate_at(self, width: int) -> float:
        """Return the learning rate of the adapter, or of the body, in a model of a width.

        The best rate of adapters in Llama models falls with the width to the power of 0.78 (Schulman et al., LoRA
        Without Regret, 2025). The rate at 640 was chosen on the demo pair.
        """
        rate = 1e-3 * (640 / width) ** 0.78 if self.rate is None else self.rate
        return rate / 10 if self.train == "full" else rate


@dataclass(frozen=True, kw_only=True)
class HealRunOptions(Options):
    """How a training runs, and what it writes."""

    save: str = option(
        "merged",
        "Write a whole model with the changes `merged`, or a PEFT `adapter` folder with the new embeddings.",
        choices=("merged", "adapter"),
        recorded=False,
    )
    gradient_checkpointing: bool = option(False, "Save memory: compute activations twice.")
    shard: bool = option(
        False,
        "Divide the layers of the body among the processes of the launcher, for a model that no device holds whole.",
        recorded=False,
    )
    dtype: str = option(
        "auto",
        "Type that the body computes in: that of its weights (`auto`), float32 or bfloat16.",
        choices=("auto", "float32", "bfloat16"),
    )
    seed: int = seed_option("Seed of the order of the text and of the adapter.")
    track: str | None = option(
        None, "Where to log the training: a tracker that transformers knows, such as tensorboard.", recorded=False
    )


@dataclass(frozen=True, kw_only=True)
class HealOptions(
    HealTextOptions, HealLossOptions, HealTrainOptions, HealRunOptions, WriteOptions, DeviceOptions, TrustOptions
):
    """Everything that a user can set for healing."""


@dataclass(frozen=True, kw_only=True)
class HealStepOptions(FieldOptions):
    """Healing as the last step of another operation."""

    heal: Sequence[str | Path] = option(
        (),
        "Train the result on this text, as `tokswap heal` does; repeat for more.",
        metavar="FILE",
        complete="files",
    )
    heal_train: str = option(
        "adapter", "What --heal trains, as `tokswap heal --train` says.", choices=TRAINS, metavar="WHAT", needs="heal"
    )
