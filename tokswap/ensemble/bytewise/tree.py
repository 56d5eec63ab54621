"""A language model that reads a tree of tokens: many continuations of one text, in one pass and one cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tokswap.evaluation.losses import cache_name

_ROOM = 256


class Tree:
    """Token sequences that share their beginnings, with one entry of the key-value cache a token.

    A token attends to its ancestors alone, through a four-dimensional mask, and its position is its depth; so the model
    says of each path what it would say of that sequence by itself. Layers with a sliding window get a mask of their own.

    depth, token, parent: of each node; node 0.. are the start tokens.
    """

    def __init__(self, model: Any, start: Sequence[int]) -> None:
        self.model = model
        self._start = list(start)
        self.reset()

    def reset(self) -> np.ndarray:
        """Forget all but the start tokens; returns the log probabilities float32[V] after them."""
        from transformers import DynamicCache

        self._cache = DynamicCache()  # without the config, so that no layer drops what lies outside its window
        self.parent: list[int] = []
        self.depth: list[int] = []
        self.token: list[int] = []
        self._sees: np.ndarray = np.zeros((_ROOM, _ROOM), bool)
        found = self.extend([n - 1 for n in range(len(self._start))], self._start)
        self.root = len(self._start) - 1
        after: np.ndarray = found[-1]
        return after

    def __len__(self) -> int:
        return len(self.parent)

    def extend(self, parents: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
        """Add nodes, each under a node that comes before it (-1: under none); returns log probabilities float32[n, V].

        A parent may be one of the new nodes; they are numbered on from len(self).
        """
        import torch

        first = len(self)
        for parent, token in zip(parents, tokens, strict=True):
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

    def keep(self, nodes: Sequence[int]) -> dict[int, int]:
        """Drop all nodes but these and their ancestors; returns old number -> new number."""
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
        """The mask of the nodes from `first` on; one for each kind of layer where a model has windows."""
        import torch

        config = self.model.config.get_text_config()
        sees = self._sees[first : len(self), : len(self)]

        def mask(allowed: np.ndarray) -> Any:
            bias = torch.zeros(allowed.shape, dtype=self.model.dtype)
            bias.masked_fill_(torch.from_numpy(~allowed), torch.finfo(self.model.dtype).min)
            return bias[None, None].to(self.model.device)

        window = getattr(config, "sliding_window", None)
        kinds = set(getattr(config, "layer_types", None) or [])
        if window is None or (kinds and "sliding_attention" not in kinds):
            return mask(sees)
        depth = np.array(self.depth)
        near = sees & (depth[first:, None] - depth[None, :] < window)
        if not kinds:
            return mask(near)
        return {"full_attention": mask(sees), "sliding_attention": mask(near)}
