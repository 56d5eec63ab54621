"""What a method may ask for besides its `Problem`. No files, no command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from tokswap.hypernet import Hypernet
    from tokswap.hypernet.surface import Surface


@dataclass(frozen=True)
class WordVectors:
    """Vectors of words.

    Attributes:
        words: The words, most frequent first.
        rows: Their vectors, float32 [len(words), width].
    """

    words: Sequence[str]
    rows: np.ndarray


class Resources(Protocol):
    """What methods need from disk: texts, word vectors, text encoders and hypernetworks.

    Methods open no file themselves. `disk.DiskResources` implements this and documents the errors.
    """

    def check_file(self, path: str, setting: str, example: str) -> None:
        """Check that a setting names an existing file; `example` is what the hint shows as its value."""
        ...

    def read_text(self, path: str) -> str:
        """Return the text of a file."""
        ...

    def read_word_vectors(self, path: str, most: int) -> WordVectors:
        """Read the first `most` word vectors of a file."""
        ...

    def check_training(self) -> None:
        """Check that token vectors can be trained."""
        ...

    def train_token_vectors(
        self,
        sentences: Sequence[Sequence[int]],
        names: Sequence[str],
        *,
        width: int,
        epochs: int,
        least: int,
        seed: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Train vectors of the tokens that occur `least` times; return their ids, int64 [n], and float32 [n, width]."""
        ...

    def check_encoder(self, encoder: str) -> None:
        """Check that a text encoder can be loaded, without loading it."""
        ...

    def encode_texts(
        self, encoder: str, texts: Sequence[Sequence[str]], *, device: str, progress: bool
    ) -> list[np.ndarray]:
        """Return float32 [len(texts[i]), width] for each list of texts: norm 1, or zeros for a text it cannot read."""
        ...

    def open_surface(self, path: str) -> Surface:
        """Read the configuration and the tokenizer of a hypernetwork, without its weights."""
        ...

    def hypernet_bytes(self, path: str) -> int:
        """Return the size of a hypernetwork's weights on disk."""
        ...

    def load_hypernet(self, path: str, *, device: str) -> Hypernet:
        """Load a hypernetwork."""
        ...
