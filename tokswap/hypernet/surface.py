"""Surface forms: each token as ids of the source vocabulary, cut by the source tokenizer in its byte-level form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tokswap.errors import InputError
from tokswap.hypernet.config import HypernetConfig
from tokswap.tokenizer.byte_level import is_byte_level
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind, Vocabulary, byte_level_bytes, byte_level_token

_SAME = 0.9
"""The share of a base model's tokens that must mean the same; fine-tunes change a few."""


@dataclass(frozen=True)
class Surface:
    """Cuts tokens into surface forms.

    tokenizer: in byte-level form, as it lies beside the network. Raises InputError not-byte-level, bad-hypernet.
    """

    tokenizer: Tokenizer
    config: HypernetConfig

    def __post_init__(self) -> None:
        if not is_byte_level(self.tokenizer.spec):
            raise InputError(
                "not-byte-level",
                "the tokenizer.json beside this hypernetwork does not spell its tokens in the byte alphabet",
                "it must be the one that was saved with the hypernetwork, not that of the base model",
                tokenizer=self.tokenizer.path,
            )
        ids, room = len(self.tokenizer.vocabulary), self.config.original_vocab_size + self.config.hn_n_extra_tokens
        if ids > room:
            raise InputError(
                "bad-hypernet",
                f"its tokenizer has {ids:,} ids, and the network has rows for {room:,}",
                "take the tokenizer.json that was saved with the hypernetwork",
                tokenizer=self.tokenizer.path,
            )

    @cached_property
    def _model(self) -> Any:
        return self.tokenizer.backend.model

    def cut(self, surface: bytes) -> list[int]:
        """Return the ids that spell some bytes, however many they are."""
        return [piece.id for piece in self._model.tokenize(byte_level_token(surface))] if surface else []

    def forms(self, surfaces: Sequence[bytes]) -> np.ndarray:
        """Return int32[n, L]: the first L pieces of each token, padded at the end."""
        return self.pack([self.cut(surface) for surface in surfaces])

    def pack(self, pieces: Sequence[Sequence[int]]) -> np.ndarray:
        """Return lists of ids as int32[n, L], cut to L and padded at the end."""
        forms = np.full((len(pieces), self.config.hn_surface_maxlen), self.config.pad_token_id, np.int32)
        for row, ids in zip(forms, pieces, strict=True):
            row[: len(ids)] = ids[: len(row)]
        return forms

    def check_base(self, base: Vocabulary, width: int, rows: int, *, tied: bool) -> None:
        """Raise InputError wrong-base-model where a model is not the one that the network was trained for.

        base: the model's vocabulary. width, rows: of its input table. Fine-tunes with some tokens more are welcome.
        """
        problem = ""
        if width != self.config.n_embd:
            problem = f"its rows have {width:,} elements, and the hypernetwork predicts {self.config.n_embd:,}"
        elif rows < self.config.original_vocab_size:
            problem = f"it has {rows:,} rows, and the hypernetwork reads {self.config.original_vocab_size:,}"
        elif tied and self.config.separate_out_embeddings:
            problem = "its input and output rows are one table, and the hypernetwork was trained for two"
        elif not tied and not self.config.separate_out_embeddings:
            problem = "its input and output rows are two tables, and the hypernetwork predicts one"
        else:
            own = self.tokenizer.vocabulary
            ids = np.flatnonzero(base.kind[: self.config.original_vocab_size] == Kind.NORMAL).tolist()
            same = sum(n < len(own) and byte_level_bytes(own.text[n]) == base.token_bytes[n] for n in ids)
            if same < _SAME * len(ids):
                problem = f"only {same:,} of its {len(ids):,} tokens are those that the hypernetwork knows"
        if problem:
            name = self.config.base_model
            raise InputError(
                "wrong-base-model",
                f"this is not the model that the hypernetwork was trained for: {problem}",
                f"it was trained for {name}" if name else "use it on its base model or a fine-tune of that",
                hypernet=self.tokenizer.path,
            )
