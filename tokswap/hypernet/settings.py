"""The settings of a training, declared once: the flags of `tokswap hypernet train` and the docs derive from them.

The defaults are those of the paper (arXiv 2405.07883) where it names them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi

from tokswap.errors import UsageError
from tokswap.options.declare import Options, option, seed_option


@dataclass(frozen=True, kw_only=True)
class StageSettings(Options):
    """How long the two stages are."""

    steps: int = option(20000, "Steps of the main stage: language modelling with predicted embeddings.", least=0)
    identity_steps: int = option(2000, "Steps of the first stage: reproduce the source embeddings.", least=0)


@dataclass(frozen=True, kw_only=True)
class BatchSettings(Options):
    """How much a step reads."""

    batch: int = option(128, "Texts per step, over all processes.", least=1)
    length: int = option(128, "Tokens per text.", least=2)
    identity_batch: int = option(1024, "Tokens per step of the first stage, over all processes.", least=1)
    field: str = option("text", "Name of the text field in JSON lines and parquet files.", metavar="NAME")


@dataclass(frozen=True, kw_only=True)
class SamplingSettings(Options):
    """How tokenizers are sampled."""

    vocabulary: int = option(32768, "Tokens of a sampled tokenizer.", least=512)
    negatives: int = option(8192, "Tokens to predict besides those of the texts.", least=0)
    queue: int = option(64, "Steps whose texts a sampled tokenizer is built from.", least=1)
    noise: float = option(4.0, "Spread of the noise on a sampled vocabulary.", least=0.0)
    by_text: bool = option(
        False, "Take one --text per step, in turn, and sample the tokenizer from it alone; for a text per language."
    )


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(Options):
    """How large the hypernetwork is."""

    hidden: int = option(0, "Width of the hypernetwork; 0 is twice the model's.", least=0)
    layers: int = option(3, "Layers of the hypernetwork.", least=1)
    pieces: int = option(7, "Source tokens to read of each new token.", least=1)


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings(Options):
    """Learning rates and the terms of the loss."""

    rate: float = option(6e-5, "Learning rate of the main stage.", least=0.0)
    identity_rate: float = option(3e-4, "Learning rate at the end of the first stage.", least=0.0)
    warmup: float = option(0.05, "Share of the main stage with a rising learning rate.", least=0.0, most=1.0)
    lexical: float = option(
        0.5, "Weight of the distance between predicted and source embeddings of known tokens.", least=0.0
    )
    split: float = option(
        0.5, "Share of the first stage's tokens to split in two; the paper splits none.", least=0.0, most=1.0
    )
    decay: float = option(0.01, "Weight decay.", least=0.0)
    clip: float = option(0.1, "Largest norm of the gradient; 0 for no limit.", least=0.0)


@dataclass(frozen=True, kw_only=True)
class RunSettings(Options):
    """How a run computes and saves."""

    save_every: int = option(500, "Steps between checkpoints.", least=1)
    bf16: bool = option(False, "Compute in bfloat16 where that is safe.")
    seed: int = seed_option("Seed for the order of texts, the sampled tokenizers and the first weights.")


@dataclass(frozen=True, kw_only=True)
class TrainSettings(StageSettings, BatchSettings, SamplingSettings, NetworkSettings, OptimizerSettings, RunSettings):
    """Everything that can be chosen about a training.

    Raises:
        UsageError: bad-setting.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.all_steps:
            raise UsageError("bad-setting", "--steps and --identity-steps are both 0: there is nothing to do")

    @property
    def all_steps(self) -> int:
        """Steps of both stages."""
        return self.identity_steps + self.steps

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step.

        In the first stage the rate rises from 0. In the main stage it rises, then falls on a cosine to a tenth.

        Args:
            step: The step, counted from 0 over both stages.
        """
        if step < self.identity_steps:
            return self.identity_rate * (step + 1) / self.identity_steps
        step -= self.identity_steps
        rising = max(int(self.warmup * self.steps), 1)
        if step < rising:
            return self.rate * (step + 1) / rising
        done = (step - rising) / max(self.steps - rising, 1)
        return self.rate * (0.1 + 0.9 * 0.5 * (1.0 + cos(pi * done)))
