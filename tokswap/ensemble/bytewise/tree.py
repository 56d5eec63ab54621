"""A tree of tokens that a language model reads: many continuations of one text, in one pass and one cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tokswap.errors import InputError
from tokswap.evaluation.caches import predicts_alike
from tokswap.evaluation.models import cache_name, without_cache

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


def check_tree(model: Any, start: Sequence[int], nodes: int = 0) -> None:
    """Check that a model reads a tree as it reads each of its paths alone, on a few tokens.

    Recurrent states go from a token to the next one whatever the mask says, and some models compute positions and
    masks of their own. What they predict in a tree would be wrong without a sign.

    Args:
        model: The causal language model, in evaluation mode.
        start: Ids that every text begins with.
        nodes: About as many nodes as a tree will have.

    Raises:
        InputError: not-bytewise.
    """
    config = model.config.get_text_config()
    size = config.vocab_size
    a, b, c, d = (n * size // 5 for n in range(1, 5))
    paths = [[a, b, c], [a, b, d], [d, c, a]]
    try:
        tree = Tree(model, start)
        root, first = tree.root, len(tree)
        trunk = tree.extend([root, first, first + 1], paths[0])
        branches = tree.extend([first + 1, root, first + 4, first + 5], [d, *paths[2]])
        expected = _plain(model, [[*start, *path] for path in paths])[:, len(start) :]
        found = np.stack([trunk, np.stack([trunk[0], trunk[1], branches[0]]), branches[1:]])
        problem = "" if predicts_alike(model, found, expected) else "it mixes them up"
    except Exception as error:  # whatever a model raises that has no place for the mask, the positions or the cache
        problem = (str(error).splitlines() or [type(error).__name__])[0]
    if any(width < nodes for width in _own_windows(config)):
        problem = "some of its layers read a part of the text, by rules that take no mask"
    if problem:
        raise InputError(
            "not-bytewise",
            f"{type(model).__name__} cannot read several continuations of a text at once: {problem}",
            "byte mixtures need attention that takes a mask; put the models on one tokenizer with `ensemble prepare`",
        )


def _own_windows(config: Any) -> list[int]:
    """Return the widths of windows that a model lays over the entries of its cache, not over the text (GPT-Neo)."""
    kinds = {*(getattr(config, "attention_layers", None) or ()), *(getattr(config, "layer_types", None) or ())}
    widths = {"local": "window_size", "chunked_attention": "attention_chunk_size"}
    found = [getattr(config, name, None) for kind, name in widths.items() if kind in kinds]
    return [width for width in found if isinstance(width, int)]


def _plain(model: Any, rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the log-probabilities after each token of sequences of one length (float32 [rows, n, V])."""
    import torch

    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([list(row) for row in rows], device=model.device), **without_cache(model))
        found: np.ndarray = torch.log_softmax(logits.logits.float(), dim=-1).cpu().numpy()
    return found
