"""A hypernetwork ready for use: rows for any tokens, with the latest ones kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tokswap.errors import UsageError
from tokswap.hypernet.config import HypernetConfig
from tokswap.hypernet.surface import Surface

if TYPE_CHECKING:
    from tokswap.hypernet.model import Network

BLOCK = 4096
CACHED_ROWS = 1 << 16


class Prediction(NamedTuple):
    """Predicted rows: input [n, E]; output [n, E], None where the tables are tied; bias [n], None without one."""

    input: np.ndarray
    output: np.ndarray | None
    bias: np.ndarray | None


@dataclass(frozen=True)
class Hypernet:
    """A network with the tokenizer of its surface forms; made by `load_hypernet`.

    source: float32[V, n_in], the base model's rows, once `attach` has set them. cached_rows: how many predictions
    `predict` keeps; the least recently used go first.
    """

    config: HypernetConfig
    network: Network
    surface: Surface
    device: str = "cpu"
    source: Any = None
    lang_index: int | None = None
    cached_rows: int = CACHED_ROWS
    _cache: OrderedDict[bytes, tuple[Any, ...]] = field(default_factory=OrderedDict, repr=False)

    def __call__(self, surface_forms: Any, source_embeddings: Any, lang_index: int | None = None) -> Prediction:
        """Predict rows, in float32.

        surface_forms: int[n, L]. source_embeddings: [V, n_in], input and output rows beside each other where they
        are apart. Arrays or tensors. Forms are sorted by length and computed in blocks; a row depends on nothing but its
        own form.
        """
        import torch

        forms = torch.as_tensor(surface_forms, device=self.device).long()
        source = torch.as_tensor(source_embeddings, device=self.device)
        config = self.config
        if forms.ndim != 2 or not 0 < forms.shape[1] <= config.hn_surface_maxlen:
            raise UsageError("bad-surface-forms", f"surface forms are [n, {config.hn_surface_maxlen}] at most")
        if source.ndim != 2 or source.shape[1] != config.n_in or len(source) < config.original_vocab_size:
            wanted = f"[{config.original_vocab_size}, {config.n_in}]"
            raise UsageError("bad-surface-forms", f"source embeddings are {wanted}, not {list(source.shape)}")
        most = config.original_vocab_size + config.hn_n_extra_tokens
        if forms.numel() and not 0 <= int(forms.min()) <= int(forms.max()) < most:
            raise UsageError("bad-surface-forms", f"surface forms hold ids from 0 to {most - 1:,}")
        config.check_language(lang_index)
        order = (forms != config.pad_token_id).sum(dim=1).argsort(stable=True)
        starts = range(0, max(len(forms), 1), BLOCK)
        with torch.inference_mode():
            parts = [self.network(forms[order[n : n + BLOCK]], source, lang_index) for n in starts]
            back = order.argsort()
            columns = [
                None if c[0] is None else torch.cat(c)[back].float().cpu().numpy() for c in zip(*parts, strict=True)
            ]
        return Prediction(*columns)  # type: ignore[arg-type]

    def attach(self, source_embeddings: Any, lang: str | None = None, cached_rows: int = CACHED_ROWS) -> Hypernet:
        """Return this hypernetwork with a base model's rows [V, n_in], so that it can `predict`."""
        import torch

        source = torch.as_tensor(source_embeddings, device=self.device).float()
        index = self.config.language_index(lang)
        return replace(self, source=source, lang_index=index, cached_rows=cached_rows, _cache=OrderedDict())

    def predict(self, tokens: Sequence[bytes | str]) -> Prediction:
        """Predict the rows of tokens, each named by its bytes (or its text), for the attached model."""
        if self.source is None:
            raise UsageError("no-source-rows", "there are no source rows to predict from", "call attach() first")
        keys = [token.encode() if isinstance(token, str) else bytes(token) for token in tokens]
        found = {key: self._cache[key] for key in keys if key in self._cache}
        new = [key for key in dict.fromkeys(keys) if key not in found]
        if new or not keys:
            made = self(self.surface.forms(new), self.source, self.lang_index)
            columns = [[None] * len(new) if column is None else list(column) for column in made]
            found.update(zip(new, zip(*columns, strict=True), strict=True))
            if not keys:
                return made
        for key in dict.fromkeys(keys):
            self._cache[key] = found[key]
            self._cache.move_to_end(key)
        while len(self._cache) > self.cached_rows:
            self._cache.popitem(last=False)
        whole = list(zip(*(found[key] for key in keys), strict=True))
        return Prediction(*(None if column[0] is None else np.stack(column) for column in whole))  # type: ignore[arg-type]
