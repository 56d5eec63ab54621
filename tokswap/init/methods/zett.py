"""Rows predicted by a hypernetwork (ZeTT, arXiv 2405.07883): the adapter onto `tokswap.hypernet`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tokswap.errors import InputError, UsageError
from tokswap.init.base import Problem, option
from tokswap.tokenizer.vocabulary import Vocabulary

if TYPE_CHECKING:
    from tokswap.hypernet import Prediction


@dataclass(frozen=True)
class ZeTT:
    """A hypernetwork that was trained for the model (or for what it is a fine-tune of) predicts each new token's rows.

    It reads the source rows of the token's pieces. `tokswap hypernet import` gets a published one, `tokswap hypernet train`
    makes one. Control tokens are copied as ever; biases are predicted where the model has them.
    """

    path: str = option("", "folder of the hypernetwork; it must be given")
    lang: str = option("", "language of the tokens, for hypernetworks that know languages")
    replace: bool = option(
        False, "predict the rows of shared text tokens too, as the paper does, instead of copying them"
    )

    summary: ClassVar[str] = "predicted by a hypernetwork trained for the model"
    source: ClassVar[str] = "arXiv 2405.07883"
    needs_donor: ClassVar[bool] = False

    @property
    def keeps_shared(self) -> bool:
        """Whether the rows of shared text tokens are copied."""
        return not self.replace

    def check_base(self, base: Vocabulary, width: int, rows: int, tied: bool) -> None:
        """Raise what makes this hypernetwork unfit for a model, before a weight is read."""
        if not self.path:
            hint = "`--set path=DIR`; `tokswap hypernet import` or `tokswap hypernet train` makes one"
            raise UsageError("bad-setting", "`zett` needs the folder of a hypernetwork", hint)
        from tokswap.hypernet import open_surface

        surface = open_surface(self.path)
        surface.config.language_index(self.lang)
        surface.check_base(base, width, rows, tied=tied)

    def __call__(self, problem: Problem) -> np.ndarray:
        """Return float32[M, D]."""
        if problem.role == "per-layer":
            raise InputError("wrong-base-model", "hypernetworks predict no rows for a table of every layer")
        key = ("zett", self)
        if key not in problem.cache:
            problem.cache[key] = self._predict(problem)
        made: Prediction = problem.cache[key]
        rows = made.output if problem.role == "output" and made.output is not None else made.input
        biases = [
            # Biases come and go round their mean; without a prediction the mean it is.
            np.zeros(len(rows), np.float32) if made.bias is None else made.bias - np.float32(columns.shift)
            for columns in problem.source.columns[1:]
        ]
        return np.column_stack([rows, *biases]).astype(np.float32, copy=False)

    def _predict(self, problem: Problem) -> Prediction:
        from tokswap.hypernet import load_hypernet

        hypernet = load_hypernet(self.path, device=problem.device)
        config = hypernet.config
        ids = np.arange(config.original_vocab_size)
        roles = ("input", "output") if config.separate_out_embeddings else ("input",)
        parts = [problem.spaces.get(role, problem.source).rows(ids)[:, : config.n_embd] for role in roles]
        forms = hypernet.surface.forms([problem.target.token_bytes[token] for token in problem.missing.tolist()])
        source = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        return hypernet(forms, source, config.language_index(self.lang))

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """Three layers, four pieces a token, a network twice as wide as the model."""
        return 750.0 * missing * width**2
