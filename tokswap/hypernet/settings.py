"""What can be chosen about a training. Declared once: the command line and the docs take the settings from here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from tokswap.errors import UsageError


def setting(default: Any, help: str, *, least: float | None = None, most: float | None = None) -> Any:
    """Declare a setting: a field with its help text and its range."""
    return dataclasses.field(default=default, metadata={"help": help, "least": least, "most": most})


@dataclass(frozen=True)
class TrainSettings:
    """The schedule and the sizes of a training; the defaults are the paper's (arXiv 2405.07883) where it names them.

    Raises UsageError bad-setting.
    """

    steps: int = setting(20000, "Steps of the main stage: language modelling with predicted rows.", least=0)
    identity_steps: int = setting(2000, "Steps of the first stage: give the source's own rows back.", least=0)
    batch: int = setting(128, "Texts a step, over all processes.", least=1)
    length: int = setting(128, "Tokens of a text.", least=2)
    identity_batch: int = setting(1024, "Tokens a step of the first stage, over all processes.", least=1)
    vocabulary: int = setting(32768, "Tokens of a sampled tokenizer.", least=512)
    negatives: int = setting(8192, "Tokens of it that are predicted besides those of the texts.", least=0)
    queue: int = setting(64, "Steps whose texts the sampled tokenizers are made from.", least=1)
    noise: float = setting(4.0, "Spread of the noise on a sampled vocabulary.", least=0.0)
    hidden: int = setting(0, "Width of the hypernetwork; 0 is twice the model's.", least=0)
    layers: int = setting(3, "Layers of the hypernetwork.", least=1)
    pieces: int = setting(7, "Source tokens of a new token that are read.", least=1)
    rate: float = setting(6e-5, "Learning rate of the main stage.", least=0.0)
    identity_rate: float = setting(3e-4, "Learning rate that the first stage rises to.", least=0.0)
    warmup: float = setting(0.05, "Share of the main stage in which its rate rises.", least=0.0, most=1.0)
    lexical: float = setting(0.5, "Weight of the distance of known tokens to their rows.", least=0.0)
    split: float = setting(
        0.5, "Share of the first stage's tokens that are cut into smaller ones; the paper's is 0.", least=0.0, most=1.0
    )
    decay: float = setting(0.01, "Weight decay.", least=0.0)
    clip: float = setting(0.1, "Norm that gradients are cut to.", least=0.0)
    save_every: int = setting(500, "Steps between checkpoints.", least=1)
    bf16: bool = setting(False, "Compute in bfloat16 where that is safe.")
    seed: int = setting(0, "Decides the texts' order, the sampled tokenizers and the first weights.", least=0)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, least, most = getattr(self, field.name), field.metadata["least"], field.metadata["most"]
            if least is not None and not least <= value <= (float("inf") if most is None else most):
                bounds = f"at least {least}" + (f" and at most {most}" if most is not None else "")
                flag = "--" + field.name.replace("_", "-")
                raise UsageError("bad-setting", f"{flag} must be {bounds}, not {value}")
        if not self.steps + self.identity_steps:
            raise UsageError("bad-setting", "--steps and --identity-steps are both 0: there is nothing to do")

    @property
    def all_steps(self) -> int:
        """Steps of both stages."""
        return self.identity_steps + self.steps

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0 over both stages.

        The first stage's rises from 0 to its end; the main stage's rises, then falls on a cosine to a tenth.
        """
        from math import cos, pi

        if step < self.identity_steps:
            return self.identity_rate * (step + 1) / self.identity_steps
        step -= self.identity_steps
        rising = max(int(self.warmup * self.steps), 1)
        if step < rising:
            return self.rate * (step + 1) / rising
        done = (step - rising) / max(self.steps - rising, 1)
        return self.rate * (0.1 + 0.9 * 0.5 * (1.0 + cos(pi * done)))
