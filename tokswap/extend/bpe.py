"""BPE, byte-level and SentencePiece: new tokens by new merges that rank last. Pure: parsed JSON in, parsed JSON out.

`unigram` and `wordpiece` have a class of the same name and methods.

Why old texts keep their tokenization: BPE applies the earliest merge until none applies. All old merges rank before the
new ones, so they are applied first, as before. A new merge makes a token that did not exist, so it changes only texts
that contain the new token. A merge whose product is an old token is never added: it would change such texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from tokswap.tokenizer.merges import merges_of
from tokswap.trim.bpe import merged


class Splice:
    """A BPE model that grows by one token after the other.

    Attributes:
        parts: New token -> the two tokens that its merge joins.
    """

    def __init__(self, model: Mapping[str, Any]) -> None:
        """Start from the `model` of a tokenizer.json."""
        self.parts: dict[str, tuple[str, ...]] = {}
        self._model = model
        self._old: Mapping[str, int] = model["vocab"]
        self._merges: list[tuple[str, str]] = []
        self._rank: dict[tuple[str, str], int] = {}
        for pair in merges_of(model):
            self._rank.setdefault(pair, len(self._rank))

    def add(self, token: str) -> str:
        """Add a token, and the tokens on the way to it, which `parts` lists before it.

        Args:
            token: The token, as the model spells it; no token of the model yet.

        Returns:
            Why it cannot be added, and nothing was; "" where it was.
        """
        if lost := [character for character in token if character not in self._old]:
            return f"the tokenizer has no token for {lost[0]!r}"
        steps: list[tuple[str, str]] = []
        problem = ""
        while not problem and len(symbols := merged(token, self._rank)[0]) > 1:
            pair = next((pair for pair in pairwise(symbols) if "".join(pair) not in self._old), None)
            if pair is None:
                problem = "every two tokens of it make an old token that no merge makes"
            else:
                self._rank[pair] = len(self._rank)
                steps.append(pair)
        if problem:
            for pair in steps:
                del self._rank[pair]
            return problem
        self._merges += steps
        self.parts |= {"".join(pair): pair for pair in steps if "".join(pair) not in self.parts}
        return ""

    def model(self, ids: Mapping[str, int]) -> dict[str, Any]:
        """Return the `model` with the new tokens. ids: every new token, added tokens among them -> its id."""
        merges = self._model["merges"]
        as_text = bool(merges) and isinstance(merges[0], str)
        new = [" ".join(pair) if as_text else list(pair) for pair in self._merges]
        return {**self._model, "vocab": {**self._old, **ids}, "merges": [*merges, *new]}
