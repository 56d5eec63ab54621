"""A model with new vocabulary matrices, of which only the rows of some tokens and a map are trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import Embedding, Module, Parameter
from torch.nn.functional import linear

from tokswap.errors import InputError
from tokswap.heal.calibration import Matrices


class CompactModel:
    """A loaded causal model that reads and predicts the tokens of new matrices.

    Only the rows of active tokens are float32 parameters, so a step costs what these rows cost. Inside, a token is
    numbered by its place: active tokens come first, all others after them.

    Attributes:
        model: The loaded model. It is changed; `close` must be called before it gets other matrices.
        matrices: The matrices that training starts from.
        active: Target ids whose rows are parameters, ascending, int64 [A].
        place: Place of each target id, int64 [V].
        rows: Input embeddings of the active tokens, a parameter [A, D].
        map: A row e acts as e + e @ map, whatever its token; a parameter [D, D] that starts at zero.
        head: The same as `rows` for the lm_head; the same object where the matrices are tied.
        head_map: The same as `map` for the lm_head; the same object where the matrices are tied.
        dtype: Type of the parameters of the body.
    """

    def __init__(self, model: Any, matrices: Matrices, active: np.ndarray) -> None:
        """Give a model new matrices.

        Args:
            model: The loaded model.
            matrices: Its new matrices.
            active: Target ids whose rows are trained, ascending, int64 [A].

        Raises:
            InputError: cannot-calibrate, where the model does not look its embeddings up in a plain matrix.
        """
        model.requires_grad_(False)
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        size, width = matrices.input.shape
        if not isinstance(embedding, Embedding) or embedding.weight.shape[1] != width or head is None:
            raise InputError(
                "cannot-calibrate",
                f"the embeddings of {type(model).__name__} are not a plain matrix",
                "leave out --calibrate",
            )
        self.model, self.matrices, self.active = model, matrices, active
        own = {id(parameter) for module in (embedding, head) for parameter in module.parameters()}
        self.dtype = next(parameter.dtype for parameter in model.parameters() if id(parameter) not in own)
        others = np.setdiff1d(np.arange(size), active)
        order = np.concatenate([active, others])
        self.place = np.empty(size, np.int64)
        self.place[order] = np.arange(size)
        self.rows, self.map = self._parameter(matrices.input[active]), self._parameter(np.zeros((width, width)))
        self.head, self.head_map = self.rows, self.map
        output = matrices.input if matrices.output is None else matrices.output
        if matrices.output is not None:
            self.head, self.head_map = self._parameter(output[active]), self._parameter(np.zeros((width, width)))
        embedding.weight, embedding.num_embeddings, embedding.padding_idx = self.rows, len(active), None
        self._hook = embedding.register_forward_hook(lambda module, given, found: found + found.float() @ self.map)
        frozen = torch.from_numpy(output[others]).to(model.device, self.dtype)
        bias = None if matrices.bias is None else torch.from_numpy(matrices.bias[order]).to(model.device)
        model.set_output_embeddings(_Head(self.head, self.head_map, frozen, bias))

    def _parameter(self, values: np.ndarray) -> Parameter:
        return Parameter(torch.from_numpy(np.asarray(values, np.float32)).to(self.model.device))

    @property
    def parameters(self) -> tuple[list[Parameter], list[Parameter]]:
        """The rows and the maps, each once."""
        if self.matrices.output is None:
            return [self.rows], [self.map]
        return [self.rows, self.head], [self.map, self.head_map]

    def logits(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the logits of all tokens.

        Args:
            ids: Places of the tokens that are read, int64 [batch, n].
            mask: 1 for a token and 0 for padding, int64 [batch, n].

        Returns:
            float32 [batch, n, V], in the order of `place`.
        """
        scores: torch.Tensor = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return scores

    def result(self) -> Matrices:
        """Return the matrices as they are now, with the maps applied to every row."""

        def applied(matrix: np.ndarray, rows: Parameter, linear_map: Parameter) -> np.ndarray:
            matrix = matrix.copy()
            matrix[self.active] = rows.detach().cpu().numpy()
            matrix += matrix @ linear_map.detach().cpu().numpy()
            return matrix

        output = self.matrices.output
        return Matrices(
            applied(self.matrices.input, self.rows, self.map),
            None if output is None else applied(output, self.head, self.head_map),
            self.matrices.bias,
        )

    def close(self) -> None:
        """Remove what was added to the model, so that it can get other matrices."""
        self._hook.remove()


class _Head(Module):
    """Logits of the active tokens, then of the others.

    A map of the rows has the same effect as its transpose on the hidden states.
    """

    def __init__(self, rows: Parameter, matrix: Parameter, frozen: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.rows, self.matrix, self.frozen, self.bias = rows, matrix, frozen, bias

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = hidden + hidden.float() @ self.matrix.T
        hidden = hidden.to(self.frozen.dtype)
        scores = torch.cat([linear(hidden, self.rows.to(hidden.dtype)), linear(hidden, self.frozen)], -1).float()
        return scores if self.bias is None else scores + self.bias
