"""A tree of tokens that a language model reads: many continuations of one text, in one pass and one cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tokswap.evaluation.models import cache_name

_ROOM = 256
"""Nodes that fit into the first attention matrix."""


class Tree:
    """Token sequences that share their beginnings; each token takes one entry of the key-value cache.

    A four-dimensional mask lets a token attend to its ancestors only, and its position is its depth. So the model
    predicts the same after each path as it does after that sequence alone. Layers with a sliding window get a mask of
    their own.

    Args:
        model: The causal language model.
        start: Ids that every sequence begins with.

    Attributes:
        model: The causal language model.
        parent: Parent of each node, -1 for the first start token.
        depth: Depth of each node, 0 for the first start token.
        token: Token id of each node. The first nodes are the start tokens.
        root: The last start token.
        after_root: Log-probabilities after it (float32 [V]).
    """

    after_root: np.ndarray

    def __init__(self, model: Any, start: Sequence[int]) -> None:
        self.model = model
        self._start = list(start)
        self.reset()

    def reset(self) -> None:
        """Drop all nodes except the start tokens."""
        from transformers import DynamicCache

        # A cache that knows the config drops what lies outside a window, and such nodes may have living descendants.
        self._cache = DynamicCache()
        self.parent: list[int] = []
        self.depth: list[int] = []
        self.token: list[int] = []
        self._sees: np.ndarray = np.zeros((_ROOM, _ROOM), bool)
        self.after_root = self.extend([n - 1 for n in range(len(self._start))], self._start)[-1]
        self.root = len(self._start) - 1

    def __len__(self) -> int:
        return len(self.parent)

    def extend(self, parents: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
        """Add nodes and let the model read them in one pass. They are numbered from `len(self)` on.

        Args:
            parents: Parent of each new node: an older node, an earlier new one, or -1 for none.
            tokens: Token id of each new node.

        Returns:
            Log-probabilities after each new node (float32 [n, V]).
        """
        import torch

        first = len(self)
        for parent, token in zip(parents, tokens, strict=True):
            self._append(parent, token)
        device = self.model.device
        with torch.inference_mode():
            logits = self.model(
                input_ids=torch.tensor([tokens], device=device),
                attention_mask=self._masks(first),
                position_ids=torch.tensor([self.depth[first:]], device=device),
                use_cache=True,
                **{cache_name(self.model.forward): self._cache},
            ).logits[0]
            found: np.ndarray = torch.log_softmax(logits.float(), dim=-1).cpu().numpy()
        return found

    def _append(self, parent: int, token: int) -> None:
        node = len(self)
        if node == len(self._sees):
            grown = np.zeros((2 * node, 2 * node), bool)
            grown[:node, :node] = self._sees
            self._sees = grown
        if parent >= 0:
            self._sees[node] = self._sees[parent]
        self._sees[node, node] = True
        self.parent.append(parent)
        self.depth.append(self.depth[parent] + 1 if parent >= 0 else 0)
        self.token.append(token)

    def keep(self, nodes: Sequence[int]) -> dict[int, int]:
        """Drop all nodes except these, their ancestors and the start tokens.

        Args:
            nodes: The nodes to keep.

        Returns:
            The new number of each node that is left, by its old one.
        """
        import torch

        used: np.ndarray = np.any(self._sees[list(nodes), : len(self)], axis=0)
        used[: len(self._start)] = True
        kept = np.flatnonzero(used)
        new_of = {int(old): new for new, old in enumerate(kept)}
        index = torch.from_numpy(kept).to(self.model.device)
        for layer in self._cache.layers:
            layer.keys = layer.keys.index_select(-2, index)
            layer.values = layer.values.index_select(-2, index)
        sees = np.zeros_like(self._sees)
        sees[: len(kept), : len(kept)] = self._sees[np.ix_(kept, kept)]
        self._sees = sees
        self.parent = [new_of.get(self.parent[old], -1) for old in kept]
        self.depth = [self.depth[old] for old in kept]
        self.token = [self.token[old] for old in kept]
        return new_of

    def _masks(self, first: int) -> Any:
        """Return the attention mask of the nodes from `first` on; one per kind of layer if some have windows."""
        config = self.model.config.get_text_config()
        sees = self._sees[first : len(self), : len(self)]
        window = getattr(config, "sliding_window", None)
        kinds = set(getattr(config, "layer_types", None) or [])
        if window is None or (kinds and "sliding_attention" not in kinds):
            return self._bias(sees)
        depth = np.array(self.depth)
        near = sees & (depth[first:, None] - depth[None, :] < window)
        if not kinds:
            return self._bias(near)
        return {"full_attention": self._bias(sees), "sliding_attention": self._bias(near)}

    def _bias(self, allowed: np.ndarray) -> Any:
        """Return the mask that is added to attention scores ([1, 1, n, nodes], the model's dtype)."""
        import torch

        bias = torch.zeros(allowed.shape, dtype=self.model.dtype)
        bias.masked_fill_(torch.from_numpy(~allowed), torch.finfo(self.model.dtype).min)
        return bias[None, None].to(self.model.device)
