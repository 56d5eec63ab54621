"""Surface forms: each token as a sequence of ids of the source vocabulary.

The source tokenizer, converted to the byte alphabet, tokenizes the bytes of the token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tokswap.errors import InputError
from tokswap.hypernet.config import HypernetConfig
from tokswap.tokenizer.byte_alphabet import uses_byte_alphabet
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind, Vocabulary, byte_level_bytes, byte_level_token

_SAME = 0.9
"""Share of a base model's tokens that must mean the same. Fine-tunes change a few."""


@dataclass(frozen=True)
class Surface:
    """Turns tokens into surface forms.

    Attributes:
        tokenizer: The tokenizer in the byte alphabet that is saved with the network.
        config: The network's config.

    Raises:
        InputError: not-byte-level, bad-hypernet.
    """

    tokenizer: Tokenizer
    config: HypernetConfig

    def __post_init__(self) -> None:
        if not uses_byte_alphabet(self.tokenizer.spec):
            raise InputError(
                "not-byte-level",
                "the tokenizer.json of this hypernetwork does not spell its tokens in the byte alphabet",
                "use the one that was saved with the hypernetwork, not that of the base model",
                tokenizer=self.tokenizer.path,
            )
        ids, rows = len(self.tokenizer.vocabulary), self.config.original_vocab_size + self.config.hn_n_extra_tokens
        if ids > rows:
            raise InputError(
                "bad-hypernet",
                f"its tokenizer has {ids:,} ids, and the network has embeddings for {rows:,}",
                "use the tokenizer.json that was saved with the hypernetwork",
                tokenizer=self.tokenizer.path,
            )

    @cached_property
    def _model(self) -> Any:
        return self.tokenizer.backend.model

    def tokenize(self, token_bytes: bytes) -> list[int]:
        """Return the source ids that spell a token, however many they are."""
        return [piece.id for piece in self._model.tokenize(byte_level_token(token_bytes))]

    def forms(self, tokens: Sequence[bytes]) -> np.ndarray:
        """Return the surface forms of tokens.

        Args:
            tokens: The bytes of each token.

        Returns:
            Their first L source ids, padded at the end, int32 [n, L].
        """
        return self.pack([self.tokenize(token) for token in tokens])

    def pack(self, pieces: Sequence[Sequence[int]]) -> np.ndarray:
        """Return lists of source ids as surface forms, truncated to L ids and padded at the end, int32 [n, L]."""
        forms = np.full((len(pieces), self.config.hn_surface_maxlen), self.config.pad_token_id, np.int32)
        for row, ids in zip(forms, pieces, strict=True):
            row[: len(ids)] = ids[: len(row)]
        return forms

    def check_base(self, base: Vocabulary, width: int, rows: int, *, tied: bool | None) -> None:
        """Check that the network was trained for a model, or for a model that it is a fine-tune of.

        Args:
            base: Vocabulary of the model. A fine-tune may have a few tokens more.
            width: Width of its input embeddings.
            rows: Rows of its input embeddings.
            tied: Whether they are also its lm_head; None for a model without one.

        Raises:
            InputError: wrong-base-model.
        """
        problem = self._shape_problem(width, rows, tied) or self._vocabulary_problem(base)
        if problem:
            name = self.config.base_model
            raise InputError(
                "wrong-base-model",
                f"this is not the model that the hypernetwork was trained for: {problem}",
                f"it was trained for {name}" if name else "use it on its base model or a fine-tune of that",
                hypernet=self.tokenizer.path,
            )

    def _shape_problem(self, width: int, rows: int, tied: bool | None) -> str:
        if width != self.config.n_embd:
            return f"its embeddings have {width:,} elements, and the hypernetwork predicts {self.config.n_embd:,}"
        if rows < self.config.original_vocab_size:
            return f"it has {rows:,} rows, and the hypernetwork reads {self.config.original_vocab_size:,}"
        if tied and self.config.separate_out_embeddings:
            return "its lm_head is tied to its input embeddings, and the hypernetwork was trained for two matrices"
        if tied is False and not self.config.separate_out_embeddings:
            return "its input embeddings and lm_head are two matrices, and the hypernetwork predicts one"
        return ""

    def _vocabulary_problem(self, base: Vocabulary) -> str:
        own = self.tokenizer.vocabulary
        ids = np.flatnonzero(base.kind[: self.config.original_vocab_size] == Kind.NORMAL).tolist()
        same = sum(n < len(own) and byte_level_bytes(own.text[n]) == base.token_bytes[n] for n in ids)
        if same < _SAME * len(ids):
            return f"only {same:,} of its {len(ids):,} tokens are those that the hypernetwork knows"
        return ""
