"""The resources of a run: files, and models that libraries load. Holds no state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tokswap.errors import InputError, UsageError
from tokswap.init.resources.encoder import encode, find_encoder
from tokswap.init.resources.protocol import WordVectors
from tokswap.init.resources.vectors import check_training, read_vectors, train_vectors
from tokswap.storage.documents import whole_documents

if TYPE_CHECKING:
    from tokswap.hypernet import Hypernet
    from tokswap.hypernet.surface import Surface


class DiskResources:
    """Implement `Resources` with files and the libraries that read them."""

    def check_file(self, path: str, setting: str, example: str) -> None:
        """Check that a setting names an existing file.

        Args:
            path: Value of the setting.
            setting: Name of the setting.
            example: What the hint shows as its value.

        Raises:
            UsageError: missing-setting, where `path` is empty.
            InputError: unknown-file.
        """
        if not path:
            hint = f"--set {setting}={example}"
            raise UsageError("missing-setting", f"`{setting}` is not set, and there is no default", hint)
        if not Path(path).expanduser().is_file():
            raise InputError("unknown-file", f"`{setting}` names a file that does not exist", file=path)

    def read_text(self, path: str) -> str:
        """Return the text of a file, which may be empty. Each of the texts of JSON lines or a parquet file is a line.

        Raises:
            InputError: bad-text, missing-field, missing-extra.
        """
        texts = list(whole_documents(path, "text"))
        return texts[0] if len(texts) == 1 else "\n".join(" ".join(text.splitlines()) for text in texts)

    def read_word_vectors(self, path: str, most: int) -> WordVectors:
        """See `vectors.read_vectors`."""
        return read_vectors(path, most)

    def check_training(self) -> None:
        """See `vectors.check_training`."""
        check_training()

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
        """See `vectors.train_vectors`."""
        return train_vectors(sentences, names, width=width, epochs=epochs, least=least, seed=seed)

    def check_encoder(self, encoder: str) -> None:
        """See `encoder.find_encoder`."""
        find_encoder(encoder)

    def encode_texts(
        self, encoder: str, texts: Sequence[Sequence[str]], *, device: str, progress: bool
    ) -> list[np.ndarray]:
        """See `encoder.encode`."""
        return encode(encoder, texts, device=device, progress=progress)

    def open_surface(self, path: str) -> Surface:
        """See `hypernet.open_surface`."""
        from tokswap.hypernet import open_surface

        return open_surface(path)

    def hypernet_bytes(self, path: str) -> int:
        """Return the size of a hypernetwork's weights on disk."""
        return sum(file.stat().st_size for kind in ("safetensors", "msgpack") for file in Path(path).glob(f"*.{kind}"))

    def load_hypernet(self, path: str, *, device: str) -> Hypernet:
        """See `hypernet.load_hypernet`."""
        from tokswap.hypernet import load_hypernet

        return load_hypernet(path, device=device)
