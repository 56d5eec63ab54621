"""Rows that a hypernetwork predicts: the adapter onto `tokswap.hypernet`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tokswap.errors import InputError, UsageError
from tokswap.init.base import BaseModel, Initializer, Problem, Rows
from tokswap.init.made_rows import MadeRows
from tokswap.init.resources.protocol import Resources
from tokswap.options.declare import option

if TYPE_CHECKING:
    from tokswap.hypernet import Prediction


@dataclass(frozen=True)
class ZeTT(Initializer):
    """A hypernetwork predicts each new token's rows from the source rows of the token's pieces.

    The hypernetwork must have been trained for the source model, or for the model that it is a fine-tune of.
    `tokswap hypernet import` gets a published one, and `tokswap hypernet train` trains one. Rows of special tokens are
    copied. Output biases are predicted where the model has them.
    """

    path: str = option("", "folder of the hypernetwork (required)")
    lang: str = option("", "language of the tokens, for hypernetworks that know languages")
    replace: bool = option(False, "predict the rows of shared text tokens too, as the paper does")

    summary: ClassVar[str] = "predicted by a hypernetwork trained for the model"
    reference: ClassVar[str] = "arXiv 2405.07883"
    needs: ClassVar[str] = "a hypernetwork"

    def copies_shared(self) -> bool:
        """Copy the rows of shared tokens without `replace`."""
        return not self.replace

    def check(self, base: BaseModel, resources: Resources) -> None:
        """Check that the hypernetwork was trained for the source model.

        Raises:
            UsageError: bad-setting, unknown-language.
            InputError: wrong-base-model; as `hypernet.open_surface`.
        """
        if not self.path:
            hint = "`--set path=DIR`; `tokswap hypernet import` or `tokswap hypernet train` makes one"
            raise UsageError("bad-setting", "`zett` needs the folder of a hypernetwork", hint)
        surface = resources.open_surface(self.path)
        surface.config.language_index(self.lang)
        surface.check_base(base.vocabulary, base.width, base.rows, tied=base.tied)

    def __call__(self, problem: Problem) -> Rows:
        """Predict the rows of the matrix, with a column for each bias that is solved with it.

        Raises:
            InputError: wrong-base-model, for per-layer embeddings; as `hypernet.load_hypernet`.
        """
        if problem.matrix.role == "per-layer":
            raise InputError("wrong-base-model", "hypernetworks predict no rows of per-layer embeddings")
        key, cache = ("zett", self), problem.context.cache
        if key not in cache:
            predict = self._predictor(problem)
            if "output" in problem.spaces:  # two matrices need the predictions, and they take long
                whole = predict(slice(0, len(problem.missing)))
                predict = partial(_some, whole)
            cache[key] = predict
        predict = cache[key]

        def make(part: slice) -> np.ndarray:
            predicted = predict(part)
            rows = predicted.input
            if problem.matrix.role == "output" and predicted.output is not None:
                rows = predicted.output
            biases = [
                # The solver subtracts the mean from biases. Without a prediction, a bias is the mean.
                np.zeros(len(rows), np.float32) if predicted.bias is None else predicted.bias - np.float32(one.shift)
                for one in problem.source.columns[1:]
            ]
            return np.column_stack([rows, *biases]).astype(np.float32, copy=False)

        return Rows(MadeRows(len(problem.missing), problem.source.width, make))

    def _predictor(self, problem: Problem) -> Callable[[slice], Prediction]:
        """Return what predicts the rows of a part of the missing tokens."""
        resources = problem.context.resources
        assert resources is not None
        hypernet = resources.load_hypernet(self.path, device=problem.context.device)
        config = hypernet.config
        ids = np.arange(config.original_vocab_size)
        roles = ("input", "output") if config.separate_out_embeddings else ("input",)
        parts = [problem.spaces.get(role, problem.source).rows(ids)[:, : config.n_embd] for role in roles]
        forms = hypernet.surface.forms([problem.target.token_bytes[token] for token in problem.missing.tolist()])
        source = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        index = config.language_index(self.lang)
        return lambda part: hypernet(forms[part], source, index)

    def held(self, missing: int, anchors: int, width: int, *, work: int) -> int:
        """Count the source rows that the network reads, and its predictions."""
        return 8 * (anchors + missing) * width

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """Count three layers, four pieces per token, and a network twice as wide as the model."""
        return 750.0 * missing * width**2


def _some(predicted: Prediction, part: slice) -> Prediction:
    """Return a part of the predictions."""
    head, bias = (None if column is None else column[part] for column in predicted[1:])
    return predicted._replace(input=predicted.input[part], output=head, bias=bias)
