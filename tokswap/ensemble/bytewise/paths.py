"""The probability of token sequences that share their beginnings, and what the model predicts after each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from tokswap.ensemble.bytewise.tree import Tree


class End(NamedTuple):
    """The end of a token sequence.

    Attributes:
        node: Its last node in the tree.
        last: Its last token, None for the empty sequence.
    """

    node: int
    last: int | None


class Paths:
    """Token sequences in a `Tree`, with the log-probability of each.

    Attributes:
        tree: The tree that holds them.
    """

    _node_of: dict[tuple[int, int], int]
    """(node, token) -> the child of the node with that token."""
    _after: dict[int, np.ndarray]
    """Node -> log-probabilities after it, for the nodes that may still be needed."""
    _logs: dict[int, float]
    """Node -> log-probability of the path to it."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._forget()

    @property
    def root(self) -> End:
        """The empty sequence."""
        return End(self.tree.root, None)

    @property
    def depth(self) -> int:
        """Depth of the deepest node."""
        return max(self.tree.depth)

    def reset(self) -> None:
        """Forget every sequence but the empty one."""
        self.tree.reset()
        self._forget()

    def _forget(self) -> None:
        self._node_of = {}
        self._after = {self.tree.root: self.tree.after_root}
        self._logs = {self.tree.root: 0.0}

    def log(self, node: int) -> float:
        """Return the log-probability of the path to a node."""
        return self._logs[node]

    def expected(self, node: int) -> np.ndarray:
        """Return log-probabilities after a node (float32 [V]). The model reads it again if they were forgotten."""
        if node not in self._after:
            self._after[node] = self.tree.extend([self.tree.parent[node]], [self.tree.token[node]])[0]
        found: np.ndarray = self._after[node]
        return found

    def add(self, sequences: Iterable[Sequence[int]]) -> list[End]:
        """Add token sequences; the model reads all new nodes in one pass.

        Args:
            sequences: Token ids of each sequence, without the start tokens.

        Returns:
            The end of each sequence.
        """
        parents: list[int] = []
        tokens: list[int] = []
        first = len(self.tree)
        ends = []
        for ids in sequences:
            node = self.tree.root
            for token in ids:
                key = (node, token)
                if key not in self._node_of:
                    self._node_of[key] = first + len(tokens)
                    parents.append(node)
                    tokens.append(token)
                node = self._node_of[key]
            ends.append(End(node, ids[-1] if ids else None))
        if tokens:
            after = self.tree.extend(parents, tokens)
            for n, (parent, token) in enumerate(zip(parents, tokens, strict=True)):
                self._after[first + n] = after[n]
                self._logs[first + n] = self._logs[parent] + float(self.expected(parent)[token])
        return ends

    def forget_predictions(self, needed: set[int]) -> None:
        """Forget what the model predicts after all nodes except the needed ones."""
        self._after = {node: after for node, after in self._after.items() if node in needed}

    def prune(self, needed: set[int]) -> dict[int, int]:
        """Drop the nodes that lead to no needed one; returns old number -> new number of the others."""
        new_of = self.tree.keep(sorted(needed))
        self._node_of = {
            (new_of[parent], token): new_of[node]
            for (parent, token), node in self._node_of.items()
            if parent in new_of and node in new_of
        }
        self._after = {new_of[node]: after for node, after in self._after.items() if node in new_of}
        self._logs = {new_of[node]: log for node, log in self._logs.items() if node in new_of}
        return new_of
