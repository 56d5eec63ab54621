"""A hypernetwork that is ready for use: it predicts embeddings for any tokens and keeps the latest ones."""

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
    from torch import Tensor

    from tokswap.hypernet.model import Network, Source

BLOCK = 4096
"""Surface forms that are computed at once."""
CACHED_ROWS = 1 << 16


class Prediction(NamedTuple):
    """Predicted embeddings.

    Attributes:
        input: Input embeddings, float32 [n, E].
        output: Rows of lm_head, float32 [n, E]; None where it is tied to the input embeddings.
        bias: Bias of lm_head, float32 [n]; None where the hypernetwork predicts none.
    """

    input: np.ndarray
    output: np.ndarray | None
    bias: np.ndarray | None


@dataclass(frozen=True)
class Hypernet:
    """A network with the tokenizer of its surface forms. `load_hypernet` makes one.

    Attributes:
        config: The shape of the network.
        network: The network itself.
        surface: What turns tokens into surface forms.
        device: Where torch computes.
        source: Embeddings of the base model, float32 [V, n_in], or what reads them, once `attach` has set them.
        lang_index: Position of the tokens' language among the language embeddings, None for networks without languages.
        cached_rows: Number of predictions that `predict` keeps. The least recently used go first.
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
        """Predict the embeddings of surface forms.

        Forms are sorted by length and computed in blocks. A prediction depends on its own form alone.

        Args:
            surface_forms: Source ids of each token, an array or tensor of integers [n, L].
            source_embeddings: Embeddings of the base model, an array or tensor [V, n_in]. Each input embedding is
                followed by the row of lm_head where that is a matrix of its own. A function is given ids, int64 [m],
                and returns their rows, an array [m, n_in]: it is asked for the rows that a block of forms needs.
            lang_index: Position of the tokens' language among the language embeddings.

        Raises:
            UsageError: bad-surface-forms, unknown-language.
        """
        import torch

        forms = torch.as_tensor(surface_forms, device=self.device).long()
        source = self._reader(source_embeddings)
        self._check(forms, source)
        self.config.check_language(lang_index)
        order = (forms != self.config.pad_token_id).sum(dim=1).argsort(stable=True)
        starts = range(0, max(len(forms), 1), BLOCK)
        with torch.inference_mode():
            parts = [self.network(forms[order[n : n + BLOCK]], source, lang_index) for n in starts]
            back = order.argsort()
            first, second, bias = (
                None if blocks[0] is None else torch.cat(blocks)[back].float().cpu().numpy()
                for blocks in zip(*parts, strict=True)
            )
        assert first is not None
        return Prediction(first, second, bias)

    def _reader(self, source_embeddings: Any) -> Source:
        """Return source embeddings as the network takes them."""
        import torch

        if not callable(source_embeddings):
            return torch.as_tensor(source_embeddings, device=self.device)
        return lambda ids: torch.as_tensor(source_embeddings(ids.cpu().numpy()), device=self.device)

    def _check(self, forms: Tensor, source: Source) -> None:
        config = self.config
        if forms.ndim != 2 or not 0 < forms.shape[1] <= config.hn_surface_maxlen:
            most = config.hn_surface_maxlen
            raise UsageError("bad-surface-forms", f"surface forms must be [n, L] with L from 1 to {most}")
        if not callable(source) and (
            source.ndim != 2 or source.shape[1] != config.n_in or len(source) < config.original_vocab_size
        ):
            wanted = f"[{config.original_vocab_size}, {config.n_in}]"
            raise UsageError("bad-surface-forms", f"source embeddings must be {wanted}, not {list(source.shape)}")
        ids = config.original_vocab_size + config.hn_n_extra_tokens
        if forms.numel() and not 0 <= int(forms.min()) <= int(forms.max()) < ids:
            raise UsageError("bad-surface-forms", f"the ids of surface forms must be 0 to {ids - 1:,}")

    def attach(self, source_embeddings: Any, lang: str | None = None, cached_rows: int = CACHED_ROWS) -> Hypernet:
        """Return this hypernetwork with the embeddings of a base model, so that it can `predict`.

        Args:
            source_embeddings: As for a call.
            lang: Language of the tokens, its code or number.
            cached_rows: Number of predictions to keep.

        Raises:
            UsageError: unknown-language.
        """
        import torch

        source = source_embeddings
        if not callable(source):
            source = torch.as_tensor(source, device=self.device).float()
        index = self.config.language_index(lang)
        return replace(self, source=source, lang_index=index, cached_rows=cached_rows, _cache=OrderedDict())

    def predict(self, tokens: Sequence[bytes | str]) -> Prediction:
        """Predict the embeddings of tokens for the attached model.

        Args:
            tokens: The bytes or the text of each token.

        Raises:
            UsageError: no-source-rows; bad-setting for one token that is in no list.
        """
        if isinstance(tokens, (str, bytes)):
            raise UsageError("bad-setting", f"`tokens` takes a list, not {tokens!r:.80}", f"write [{tokens!r:.80}]")
        if self.source is None:
            raise UsageError("no-source-rows", "there are no source embeddings to predict from", "call attach() first")
        keys = [token.encode() if isinstance(token, str) else bytes(token) for token in tokens]
        if not keys:
            return self(self.surface.forms([]), self.source, self.lang_index)
        found = {key: self._cache[key] for key in keys if key in self._cache}
        new = [key for key in dict.fromkeys(keys) if key not in found]
        if new:
            predicted = self(self.surface.forms(new), self.source, self.lang_index)
            columns = [[None] * len(new) if column is None else list(column) for column in predicted]
            found.update(zip(new, zip(*columns, strict=True), strict=True))
        for key in dict.fromkeys(keys):
            self._cache[key] = found[key]
            self._cache.move_to_end(key)
        while len(self._cache) > self.cached_rows:
            self._cache.popitem(last=False)
        first, second, bias = zip(*(found[key] for key in keys), strict=True)
        return Prediction(
            input=np.stack(first),
            output=None if second[0] is None else np.stack(second),
            bias=None if bias[0] is None else np.array(bias),
        )
