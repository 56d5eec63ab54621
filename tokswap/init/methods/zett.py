"""Rows that a hypernetwork predicts: the adapter onto `tokswap.hypernet`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tokswap.checkpoint.embeddings import decode, encode
from tokswap.errors import InputError, UsageError
from tokswap.init.base import TOKEN_BYTES, BaseModel, Initializer, Problem, Rows, Sizes
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
            cache[key] = _Predictions(self._predictor(problem), problem)
        predictions: _Predictions = cache[key]

        def make(part: slice) -> np.ndarray:
            rows, bias = predictions.of(problem.matrix.role, part)
            biases = [
                # The solver subtracts the mean from biases. Without a prediction, a bias is the mean.
                np.zeros(len(rows), np.float32) if bias is None else bias - np.float32(one.shift)
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
        roles = ("input", "output") if config.separate_out_embeddings else ("input",)
        spaces = [problem.spaces.get(role, problem.source) for role in roles]
        forms = hypernet.surface.forms([problem.target.token_bytes[token] for token in problem.missing.tolist()])
        index = config.language_index(self.lang)

        def read(ids: np.ndarray) -> np.ndarray:
            return np.concatenate([space.rows(ids)[:, : config.n_embd] for space in spaces], axis=1)

        return lambda part: hypernet(forms[part], read, index)

    def held(self, sizes: Sizes) -> int:
        """Count the network with its tokenizer, and the predictions for the other matrix."""
        assert sizes.resources is not None
        network = sizes.resources.hypernet_bytes(self.path) + TOKEN_BYTES * sizes.vocabulary
        return network + (0 if sizes.tied else 2 * sizes.missing * sizes.width)

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """Count three layers, four pieces per token, and a network twice as wide as the model."""
        return 750.0 * missing * width**2


class _Predictions:
    """Predicted rows. Those that the network predicts for the other matrix are kept, as they will be written.

    Args:
        predict: Predicts a part of the missing tokens.
        problem: Has the matrices.
    """

    def __init__(self, predict: Callable[[slice], Prediction], problem: Problem) -> None:
        self._predict, self._count = predict, len(problem.missing)
        spaces = problem.spaces if "output" in problem.spaces else {}
        self._dtypes = {role: spaces[role].columns[0].dtype for role in ("input", "output") if role in spaces}
        self._kept: dict[str, _Kept] = {}

    def of(self, role: str, part: slice) -> tuple[np.ndarray, np.ndarray | None]:
        """Return rows of a part of the tokens, float32 [n, E], and their biases, float32 [n] or None."""
        kept = self._kept.get(role)
        if kept is not None and kept.known[part].all():
            return decode(kept.rows[part], self._dtypes[role]), None if kept.bias is None else kept.bias[part]
        predicted = self._predict(part)
        rows = {"input": predicted.input, "output": predicted.input if predicted.output is None else predicted.output}
        for other in self._dtypes:
            if other != role:
                self._keep(other, part, rows[other], predicted.bias)
        return rows.get(role, predicted.input), predicted.bias

    def _keep(self, role: str, part: slice, rows: np.ndarray, bias: np.ndarray | None) -> None:
        raw = encode(rows, self._dtypes[role])
        if role not in self._kept:
            self._kept[role] = _Kept(
                known=np.zeros(self._count, bool),
                rows=np.empty((self._count, raw.shape[1]), np.uint8),
                bias=None if bias is None else np.empty(self._count, np.float32),
            )
        kept = self._kept[role]
        kept.known[part], kept.rows[part] = True, raw
        if bias is not None and kept.bias is not None:
            kept.bias[part] = bias


@dataclass(frozen=True)
class _Kept:
    """Predictions for the missing tokens.

    Attributes:
        known: Which there are, bool [M].
        rows: Raw rows, uint8 [M, bytes per row].
        bias: float32 [M], None without biases.
    """

    known: np.ndarray
    rows: np.ndarray
    bias: np.ndarray | None
