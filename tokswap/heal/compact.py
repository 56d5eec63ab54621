"""A model whose vocabulary tables are new: the rows of some tokens and a map are parameters, the rest is frozen."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import Embedding, Module, Parameter
from torch.nn.functional import linear

from tokswap.errors import InputError
from tokswap.heal.calibration import Tables


class CompactModel:
    """A loaded causal model that reads and scores the tokens of new tables.

    Only the rows of the `active` tokens are held as float32, so that a step costs what these rows cost. Inside,
    tokens are numbered by their place in `active`, the others after them; `place` gives the place of each target id.

    rows, head: [A, D], parameters; head is rows where one table does both. map, head_map: [D, D], parameters, zero at
    first: a row e acts as e + e map, whatever the token.
    """

    def __init__(self, model: Any, tables: Tables, active: np.ndarray) -> None:
        model.requires_grad_(False)
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        size, width = tables.input.shape
        if not isinstance(embedding, Embedding) or embedding.weight.shape[1] != width or head is None:
            raise InputError(
                "cannot-calibrate",
                f"the embeddings of {type(model).__name__} are not a plain table of rows",
                "leave out --calibrate",
            )
        self.model, self.tables, self.active = model, tables, active
        own = {id(parameter) for module in (embedding, head) for parameter in module.parameters()}
        self.dtype = next(parameter.dtype for parameter in model.parameters() if id(parameter) not in own)
        others = np.setdiff1d(np.arange(size), active)
        order = np.concatenate([active, others])
        self.place = np.empty(size, np.int64)
        self.place[order] = np.arange(size)
        self.rows, self.map = self._parameter(tables.input[active]), self._parameter(np.zeros((width, width)))
        self.head, self.head_map = self.rows, self.map
        output = tables.input if tables.output is None else tables.output
        if tables.output is not None:
            self.head, self.head_map = self._parameter(output[active]), self._parameter(np.zeros((width, width)))
        embedding.weight, embedding.num_embeddings, embedding.padding_idx = self.rows, len(active), None
        self._hook = embedding.register_forward_hook(lambda module, given, made: made + made.float() @ self.map)
        frozen = torch.from_numpy(output[others]).to(model.device, self.dtype)
        bias = None if tables.bias is None else torch.from_numpy(tables.bias[order]).to(model.device)
        model.set_output_embeddings(_Head(self.head, self.head_map, frozen, bias))

    def _parameter(self, values: np.ndarray) -> Parameter:
        return Parameter(torch.from_numpy(np.asarray(values, np.float32)).to(self.model.device))

    @property
    def parameters(self) -> tuple[list[Parameter], list[Parameter]]:
        """The rows and the maps, each once."""
        if self.tables.output is None:
            return [self.rows], [self.map]
        return [self.rows, self.head], [self.map, self.head_map]

    def logits(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the scores of all tokens in the order of `place`, [batch, n, V], for places [batch, n]."""
        scores: torch.Tensor = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return scores

    def result(self) -> Tables:
        """Return the tables as they are now, with the maps carried out on every row."""

        def carried(table: np.ndarray, rows: Parameter, matrix: Parameter) -> np.ndarray:
            table = table.copy()
            table[self.active] = rows.detach().cpu().numpy()
            table += table @ matrix.detach().cpu().numpy()
            return table

        output = self.tables.output
        return Tables(
            carried(self.tables.input, self.rows, self.map),
            None if output is None else carried(output, self.head, self.head_map),
            self.tables.bias,
        )

    def close(self) -> None:
        """Let the model be given other tables."""
        self._hook.remove()


class _Head(Module):
    """Scores of the active tokens, then of the others. A map on the rows acts as its transpose on the hidden states."""

    def __init__(self, rows: Parameter, matrix: Parameter, frozen: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.rows, self.matrix, self.frozen, self.bias = rows, matrix, frozen, bias

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = hidden + hidden.float() @ self.matrix.T
        hidden = hidden.to(self.frozen.dtype)
        scores = torch.cat([linear(hidden, self.rows.to(hidden.dtype)), linear(hidden, self.frozen)], -1).float()
        return scores if self.bias is None else scores + self.bias
