"""Unigram: new tokens with scores by which they win. Pure: parsed JSON in, parsed JSON out.

A text gets the tokens with the highest sum of scores. A new token scores a little more than the best tokens of its own
text do together, so it takes their place wherever they would stand, and a text without it keeps its tokens. A score is
never below the lowest of the model: the tokenizers library derives the score of the unknown token from that.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

_MORE = 1e-3
"""How much more a new token scores than the tokens of its text. Scores have about five digits."""


class Splice:
    """A Unigram model that grows by one token after the other.

    Tokens must come in the order of their length: a longer one has to win over shorter new ones.

    Attributes:
        parts: New token -> the tokens that its text had before.
    """

    def __init__(self, model: Mapping[str, Any]) -> None:
        """Start from the `model` of a tokenizer.json."""
        self.parts: dict[str, tuple[str, ...]] = {}
        self._model = model
        self._score: dict[str, float] = {piece: float(score) for piece, score in model["vocab"]}
        self._least = min(self._score.values())
        self._longest = max(map(len, self._score))

    def add(self, token: str) -> str:
        """Add a token; see `bpe.Splice.add`."""
        score, pieces = self._best(token)
        if not pieces:
            lost = next((character for character in token if character not in self._score), token)
            return f"the tokenizer has no token for {lost!r}"
        self._score[token] = max(score + _MORE, self._least)
        self._longest = max(self._longest, len(token))
        self.parts[token] = pieces
        return ""

    def model(self, ids: Mapping[str, int]) -> dict[str, Any]:
        """Return the `model` with the new tokens; see `bpe.Splice.model`. The ids follow those of the model."""
        new = [[token, self._score.get(token, self._losing(token))] for token in sorted(ids, key=ids.__getitem__)]
        return {**self._model, "vocab": [*self._model["vocab"], *new]}

    def _best(self, text: str) -> tuple[float, tuple[str, ...]]:
        """Return the score and the tokens of a text, no tokens where the model lacks a character."""
        best: list[tuple[float, tuple[str, ...]]] = [(0.0, ())]
        for end in range(1, len(text) + 1):
            ways = [
                (best[start][0] + self._score[piece], (*best[start][1], piece))
                for start in range(max(0, end - self._longest), end)
                if (piece := text[start:end]) in self._score and best[start][0] > -float("inf")
            ]
            best.append(max(ways, default=(-float("inf"), ())))
        return best[-1]

    def _losing(self, added: str) -> float:
        """Return a score with which an added token never wins over the tokens of its text, as before.

        A score below all others changes that of the unknown token. That has no effect where every character of a token
        is a token too: then nothing else stands where the unknown token does.
        """
        score, pieces = self._best(added)
        if not pieces or score - _MORE >= self._least or not self._knows_characters:
            return self._least
        return score - 1.0

    @cached_property
    def _knows_characters(self) -> bool:
        pieces = [piece for piece in self._score if not piece.startswith("<")]  # special tokens and bytes are no text
        return set().union(*pieces) <= self._score.keys()
