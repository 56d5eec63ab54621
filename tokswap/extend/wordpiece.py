"""WordPiece: new tokens in the vocabulary. Pure: parsed JSON in, parsed JSON out.

WordPiece takes the longest token that fits, so a new token wins over its beginnings, and a text without it keeps its
tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Splice:
    """A WordPiece model that grows by one token after the other.

    Attributes:
        parts: New token -> the tokens that its text had before.
    """

    def __init__(self, model: Mapping[str, Any]) -> None:
        """Start from the `model` of a tokenizer.json."""
        self.parts: dict[str, tuple[str, ...]] = {}
        self._model = model
        self._old: Mapping[str, int] = model["vocab"]
        self._prefix = str(model.get("continuing_subword_prefix") or "")

    def add(self, token: str) -> str:
        """Add a token; see `bpe.Splice.add`."""
        inside = bool(self._prefix) and token.startswith(self._prefix)
        rest = token.removeprefix(self._prefix) if inside else token
        pieces: list[str] = []
        while rest:
            forms = ((self._prefix if inside or pieces else "") + rest[:end] for end in range(len(rest), 0, -1))
            piece = next((form for form in forms if form in self._old or form in self.parts), None)
            if piece is None:
                return f"the tokenizer has no token for {rest[0]!r}"
            pieces.append(piece)
            rest = rest[len(piece) - (len(self._prefix) if inside or len(pieces) > 1 else 0) :]
        self.parts[token] = tuple(pieces)
        return ""

    def model(self, ids: Mapping[str, int]) -> dict[str, Any]:
        """Return the `model` with the new tokens; see `bpe.Splice.model`."""
        return {**self._model, "vocab": {**self._old, **ids}}
